"""An LLM judge decides what a task asserts about a conversation in natural language.

It is asked once for all assertions, after the conversation has ended by the benchmark's rules. The answer is strict
JSON; one that cannot be read is asked for again, a bounded number of times. A judge that gives no verdict is a fault of
the infrastructure: the conversation is kept, and its verdict stays pending. Raise `PROMPT_VERSION` with any change of
the prompts: it changes what scores mean.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from tautools.bench.types import Domain, Task, text_hashes
from tautools.errors import CallFault, ModelCallError
from tautools.files import packaged_yaml
from tautools.llm.types import CallTag, CompletionClient, Message
from tautools.records import Conversation, Outcome, Role, SeedRule, canonical_json

PROMPT_VERSION = 1


@cache
def judge_system_prompt() -> str:
    """Return what a judge is told before it sees a conversation."""
    return str(packaged_yaml("tautools.bench", "prompts.yaml")["judge"])


STATEMENTS_LINE = "Statements:"
"""The line before the numbered statements."""


def judge_prompt(messages: Sequence[Mapping[str, Any]], statements: Sequence[str]) -> str:
    """Return the question to a judge: the conversation as the agent saw it, then the numbered statements."""
    conversation = "\n".join(line for message in messages for line in _message_lines(message))
    numbered = "\n".join(f"{number}. {' '.join(each.split())}" for number, each in enumerate(statements, start=1))
    return f"<conversation>\n{conversation}\n</conversation>\n\n{STATEMENTS_LINE}\n{numbered}"


def repair_prompt(problem: str) -> str:
    """Return the message to a judge whose answer cannot be read."""
    return (
        f"Your answer cannot be used: {problem}. Write the JSON object again, in the form asked for, and nothing else."
    )


def _message_lines(message: Mapping[str, Any]) -> Iterator[str]:
    role, text = message["role"], str(message.get("content") or "").strip()
    who = {"user": "Customer", "assistant": "Agent", "tool": "Tool"}.get(role)
    if who is None:
        return
    if text:
        yield f"{who}: {text}"
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function["arguments"]
        yield f"{who} calls {function['name']}({arguments if isinstance(arguments, str) else json.dumps(arguments)})"


BASIS = "NL_ASSERTION"
"""What a judge adds to the reward basis; tau2's name for it."""

REPAIRS = 2
"""How often a judge is asked again for an answer that can be read."""

_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AssertionVerdict:
    """What the judge decided of one assertion."""

    assertion: str
    met: bool
    reason: str = ""


def needs_judge(task: Task, outcome: Outcome) -> bool:
    """Whether a judge has something to decide: the benchmark ended the conversation, and the task asserts something."""
    return bool(task.assertions) and outcome in {Outcome.PASSED, Outcome.FAILED}


def judge_texts(domain: Domain) -> dict[str, str]:
    """Return the sha256 of the texts that a judge gets apart from conversations, by versioned name."""
    assertions = canonical_json({task.id: list(task.assertions) for task in domain.tasks.values() if task.assertions})
    return text_hashes({f"judge-v{PROMPT_VERSION}": judge_system_prompt(), "assertions": assertions})


async def ask_judge(
    domain: Domain,
    task: Task,
    conversation: Conversation,
    client: CompletionClient,
    *,
    seed_rule: SeedRule = SeedRule.REQUEST,
) -> list[AssertionVerdict]:
    """Return the judge's verdict on each assertion of a task, in order.

    Raises
    ------
    ModelCallError
        When the judge cannot be asked, or gave no verdict that can be read (`MALFORMED`).
    """
    messages: list[Message] = [
        {"role": "system", "content": judge_system_prompt()},
        {"role": "user", "content": judge_prompt(conversation.messages, task.assertions)},
    ]
    tag = CallTag(
        role=Role.JUDGE,
        ref=domain.ref,
        task_id=task.id,
        trial=conversation.trial,
        setting_id=conversation.setting_id,
        purpose="verdict",
        conversation=f"{conversation.setting_id}/{task.id}/{conversation.trial}",
        seed=conversation.seed,
        seed_rule=seed_rule,
    )
    problem, text = "", ""
    for step in range(1 + REPAIRS):
        text = (await client.complete(tag, messages)).text
        try:
            return _read_verdicts(text, task.assertions)
        except ValueError as error:
            problem = str(error)
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": repair_prompt(problem)}]
        tag = replace(tag, step=step + 1, purpose="repair")
    raise ModelCallError(
        f"The judge gave no verdict that can be read in {1 + REPAIRS} answers: {problem}.",
        fault=CallFault.MALFORMED,
        evidence=text[:400],
        next_step="Choose a judge that writes JSON; the conversation is kept, and only its verdict is pending.",
    )


def with_verdicts(conversation: Conversation, verdicts: list[AssertionVerdict]) -> Conversation:
    """Return a conversation with its verdicts; it passes when the benchmark says so and every assertion is met."""
    judged = {"nl_assertions": [asdict(each) for each in verdicts], "reward_without_judge": conversation.reward}
    changed: dict[str, Any] = {"reward_info": conversation.reward_info | judged}
    if not all(each.met for each in verdicts):
        changed |= {"reward": 0.0, "outcome": Outcome.FAILED}
    return conversation.model_copy(update=changed)


def _read_verdicts(text: str, assertions: tuple[str, ...]) -> list[AssertionVerdict]:
    """Read the judge's answer; raise `ValueError` with what is wrong with it."""
    match = _OBJECT.search(text)
    if match is None:
        raise ValueError("there is no JSON object in it")
    try:
        verdicts = json.loads(match.group(), strict=False)["verdicts"]
        by_number = {each["number"]: each for each in verdicts}
    except (KeyError, TypeError) as error:
        raise ValueError("it has not the form that was asked for") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    wanted = list(range(1, len(assertions) + 1))
    if len(verdicts) != len(wanted) or sorted(by_number, key=str) != sorted(wanted, key=str):
        raise ValueError(f"it must have one verdict for each of the numbers {', '.join(map(str, wanted))}")
    if not all(isinstance(each.get("met"), bool) for each in by_number.values()):
        raise ValueError("`met` must be true or false")
    return [
        AssertionVerdict(assertion, by_number[number]["met"], str(by_number[number].get("reason") or ""))
        for number, assertion in zip(wanted, assertions, strict=True)
    ]
