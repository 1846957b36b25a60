"""Check 11: requests as a run sends them. What only they can break is found before a run and not by it.

A seed together with sampling and a prompt that is computed in several chunks ends vLLM on the CPU ("CPU Generator does
not use offset"), and none of the three does alone. So they are sent together: the run's sampling, a seed, tools of the
size of an env, the switch for thinking, a prompt longer than one chunk, and as many at once as the run sends.
"""

import json
import time
from collections.abc import Sequence

from tautools.errors import CallFault, ModelCallError
from tautools.llm.types import Message, Reply, ToolSpec
from tautools.records import Demand, ModelConfig, Thinking, ThinkingSwitch
from tautools.servers.checks.target import CheckContext, CheckFailedError, NotApplicableError, ask_with, require, short
from tautools.servers.checks.tools import TOOL_CALLS, run_tools
from tautools.shell import process_alive

USUAL_CHUNK_TOKENS = 8192
"""vLLM's `max_num_batched_tokens` on large cards, where a server does not say its own; on others it is 2048."""
_ANSWER_TOKENS = 16
_SPARE_TOKENS = 64
_CHARS_PER_TOKEN = 3.0
"""Fewer than most tokenizers need: the first prompt is rather too short, and the second as long as it should be."""
_MARGIN = 16
"""So many parts of a length; one of them is left for what is guessed wrong."""
_SEED = 29_062_017
_RULE = (
    "Rule {}: look the order up, read its state and every item of it, and say what you found before you change it.\n"
)
_DEATH_S = 30.0
"""How long after a lost connection its process may take to end [s]."""


def check_as_a_run(context: CheckContext) -> str:
    """Send what the target demands; without tools where the server was found to have no tool calls."""
    asked = context.target.demand
    can_call = TOOL_CALLS not in context.without
    demand = asked.model_copy(update={"tool_calls": asked.tool_calls and can_call})
    tools = run_tools() if demand.tool_calls else None
    began, what = time.perf_counter(), _words(demand, tools)
    goal = _goal_tokens(context)
    first, guess = _first_answer(context, demand, tools, goal, what)
    _require_thinking(first, demand)
    for prompt in (_of_length(goal, guess, first, tools), guess):
        answers = _send(context, demand, tools, [_question(prompt, number) for number in range(demand.concurrency)])
        failed = [each for each in answers if isinstance(each, ModelCallError)]
        if any(each.fault is not CallFault.CONTEXT_OVERFLOW for each in failed) or len(failed) < len(answers):
            break
    for error in failed:
        if error.fault is not CallFault.OVERLOADED:
            raise CheckFailedError(_problem(context, error, f"{demand.concurrency} requests at once, each with {what}"))
    context.demands.append(demand)
    refused = f", {len(failed)} of them refused as too many (it will be asked again)" if failed else ""
    counted = [each.record.prompt_tokens or 0 for each in answers if not isinstance(each, ModelCallError)]
    tokens = f"{max(counted)} tokens" if any(counted) else f"{len(prompt)} characters"
    took_s = time.perf_counter() - began
    return f"{what} and {tokens} of prompt, {demand.concurrency} at once{refused}: answered in {took_s:.1f} s"


def _goal_tokens(context: CheckContext) -> int:
    """Return how long a prompt should be: more than a chunk, as far as the context has room."""
    chunk = context.target.max_batched_tokens or USUAL_CHUNK_TOKENS
    goal = chunk + chunk // _MARGIN
    if (limit := context.max_model_len) is not None:
        goal = min(goal, limit - _ANSWER_TOKENS - _SPARE_TOKENS - limit // _MARGIN)
    return goal


def _first_answer(
    context: CheckContext, demand: Demand, tools: Sequence[ToolSpec] | None, goal: int, what: str
) -> tuple[Reply, str]:
    """Return the answer to a prompt whose length in tokens is guessed, and the prompt; halved while it is refused."""
    chars = max(0, int(goal * _CHARS_PER_TOKEN) - len(json.dumps(tools or [])))
    while True:
        prompt = _policy(chars)
        (answer,) = _send(context, demand, tools, [_question(prompt, 0)])
        if not isinstance(answer, ModelCallError):
            return answer, prompt
        if answer.fault is not CallFault.CONTEXT_OVERFLOW:
            raise CheckFailedError(_problem(context, answer, what))
        if not chars:
            raise NotApplicableError(f"its context has no room for {what}: {short(answer.seen, 200)}")
        chars = chars // 2 if chars > len(_RULE) else 0


def _of_length(goal: int, guess: str, answer: Reply, tools: Sequence[ToolSpec] | None) -> str:
    """Return the prompt at its length, by how many tokens the server counted in the guessed one."""
    tokens = answer.record.prompt_tokens or goal
    missing = (goal - tokens) * (len(guess) + len(json.dumps(tools or []))) / tokens
    # A count that is far off is no count.
    return guess if tokens >= goal else _policy(len(guess) + min(3 * len(guess), int(missing)) + len(_RULE))


def _policy(chars: int) -> str:
    return "You are a customer service agent.\n" + "".join(
        _RULE.format(number) for number in range(1, chars // len(_RULE) + 1)
    )


def _question(prompt: str, number: int) -> list[Message]:
    text = f"Hello, what can you tell me about my order #W{number:07}?"
    return [{"role": "system", "content": prompt}, {"role": "user", "content": text}]


def _send(
    context: CheckContext, demand: Demand, tools: Sequence[ToolSpec] | None, questions: Sequence[Sequence[Message]]
) -> list[Reply | ModelCallError]:
    most = min(_ANSWER_TOKENS, demand.sampling.max_tokens or _ANSWER_TOKENS)
    sampling = demand.sampling.model_copy(update={"max_tokens": most})
    config = ModelConfig(
        model=context.model, sampling=sampling, thinking=demand.thinking, thinking_switch=demand.thinking_switch
    )
    seed = _SEED if demand.seeded else None
    return ask_with(config, context.endpoint, questions, tools=tools, seed=seed) if questions else []


def _words(demand: Demand, tools: Sequence[ToolSpec] | None) -> str:
    """Return what is sent, for a person."""
    chosen = demand.sampling.model_dump(exclude_defaults=True, exclude={"max_tokens"})
    words = [", ".join(f"{name} {value}" for name, value in chosen.items()) or "the server's own sampling"]
    words += ["a seed"] if demand.seeded else []
    words += [] if demand.thinking is Thinking.DEFAULT else [f"thinking {demand.thinking.value}"]
    return ", ".join([*words, f"{len(tools)} tools" if tools else "no tools"])


def _problem(context: CheckContext, error: ModelCallError, what: str) -> str:
    """Return what went wrong with a request, and whether the server ended over it."""
    process, until = context.target.process, time.monotonic() + _DEATH_S
    if process is not None and error.fault in {CallFault.UNREACHABLE, CallFault.BROKEN_STREAM, CallFault.SERVER_FAULT}:
        while process_alive(*process) and time.monotonic() < until:
            time.sleep(0.1)
        if not process_alive(*process):
            return f"the server ended over a request as a run sends it ({what}): {error.seen}"
    return f"a request as a run sends it ({what}) fails: {error.seen}"


def _require_thinking(reply: Reply, demand: Demand) -> None:
    """Require that a model whose template has a switch does not think where the run forbids it."""
    by_template = demand.thinking_switch in {ThinkingSwitch.TEMPLATE, ThinkingSwitch.NO_THINK}
    if demand.thinking is Thinking.OFF and by_template:
        require(
            not reply.thinking,
            f"it was asked not to think, by {demand.thinking_switch.value}, and does: {short(reply.thinking)}; see "
            "whether its chat template knows the switch",
        )
