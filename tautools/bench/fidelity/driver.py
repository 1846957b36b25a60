"""Drives tau-bench's own agents, users and envs by a script, and writes down every request that they make.

Run as a program of its own, by any interpreter that can import the checkout: it imports nothing of ours. It reads one
JSON object from standard input and writes one JSON line per conversation. `litellm` is a stand-in whose `completion`
answers from the script, so no network and no litellm are needed. The role of a request comes from the function that
calls, never from what is asked. Two things are cached that the original computes again for each conversation, with the
same result: the database as read from its files, and the text of each entity that its hash is made of. The tasks are
restored before each conversation, so that each is the first one of its process: the original's own replay of a
reference can change the arguments of that reference for later conversations.
"""

import copy
import gc
import hashlib
import importlib
import json
import marshal
import random
import sys
import types
from pathlib import Path
from typing import Any

ROLES = {
    "solve": "agent",
    "generate_next_step": "agent",
    "generate_next_message": "user",
    "verify": "check",
    "reflect": "check",
}
"""Calling function to role; `check` is what a user model is asked about its own draft."""
CONSTRUCTOR = {"user": {"content": "User Response:\nHello."}, "check": {"content": "true"}}
"""What is answered while an env is made: the original asks its user model then, about no task."""
AGENT_MODEL, USER_MODEL = "agent-model", "user-model"


def canonical(value: Any) -> str:
    """Return JSON that is equal for equal values; a field that is null is a field that is not there."""
    return json.dumps(without_null(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def without_null(value: Any) -> Any:
    """Return a value without its fields that are null."""
    if isinstance(value, dict):
        return {key: without_null(each) for key, each in value.items() if each is not None}
    return [without_null(each) for each in value] if isinstance(value, list) else value


def recorded(role: str, request: dict[str, Any], *ignored: str) -> dict[str, Any]:
    """Return a request as it is compared: its role, and as canonical JSON each message, the tools, and the rest."""
    apart = {"messages", "tools", *ignored}
    rest = canonical({name: value for name, value in request.items() if name not in apart})
    tools = canonical(request["tools"]) if request.get("tools") else ""
    return {"role": role, "messages": [*map(canonical, request["messages"])], "tools": tools, "rest": rest}


class ScriptedMessage:
    """An answer as litellm gives it, with what the original uses of it: its fields, its dump and its text."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.content = answer["content"]
        self.role = "assistant"
        self.tool_calls = answer.get("tool_calls")

    def model_dump(self) -> dict[str, Any]:
        """Return the message as it enters a history."""
        return {**vars(self), "function_call": None, "provider_specific_fields": None}

    def __str__(self) -> str:
        """Return what litellm's message is when it is put into a text, as the verifying user does with its draft."""
        fields = (f"{name}={value!r}" for name, value in self.model_dump().items())
        return f"Message({', '.join(fields)})"


class ScriptedModel:
    """Answers each role with the next line of its script, and keeps the requests."""

    def __init__(self) -> None:
        self.begin({}, {})

    def begin(self, answers: dict[str, list[dict[str, Any]]], after: dict[str, dict[str, Any]]) -> None:
        """Start a conversation with the answers of each role, and what each says when they are used up."""
        self.answers, self.after = {role: iter(each) for role, each in answers.items()}, after
        self.requests: list[dict[str, Any]] = []

    def completion(self, **request: Any) -> Any:
        """Stand in for `litellm.completion`."""
        role = asking_role()
        # As JSON of now: the original goes on with its lists.
        self.requests.append(recorded(role, request, "custom_llm_provider"))
        answer = next(self.answers.get(role, iter(())), self.after[role])
        return types.SimpleNamespace(
            choices=[types.SimpleNamespace(message=ScriptedMessage(answer))], _hidden_params={"response_cost": 0.0}
        )


SCRIPT = ScriptedModel()
PRISTINE: dict[int, Any] = {}
"""Tasks as they were loaded, by their index; what a conversation gets is a copy."""


def asking_role() -> str:
    """Return the role of the nearest calling function that has one."""
    frame = sys._getframe(2)  # noqa: SLF001 - who asks, without looking at what is asked
    while frame.f_code.co_name not in ROLES:
        if frame.f_back is None:
            raise SystemExit("The original asks a model in a place that is not known here.")
        frame = frame.f_back
    return ROLES[frame.f_code.co_name]


def main() -> None:
    """Play every case of the job on standard input."""
    gc.disable()  # it would walk over each copy of the database, and there are no cycles
    job = json.load(sys.stdin)
    get_env = prepare(Path(job["path"]), job["env"], job.get("domain_path"))
    for case in job["cases"]:
        sys.stdout.write(json.dumps(play(job, case, get_env)) + "\n")


def prepare(checkout: Path, env: str, domain_path: str | None) -> Any:
    """Import the original with our `litellm` in place and return its `get_env`."""
    litellm = types.ModuleType("litellm")
    vars(litellm).update(completion=SCRIPT.completion, provider_list=["openai"])
    sys.modules["litellm"] = litellm
    sys.path.insert(0, str(checkout))
    envs = importlib.import_module("tau_bench.envs")
    for name in ("base", "user"):
        importlib.import_module(f"tau_bench.envs.{name}")
    if domain_path:  # the original's machinery on the tasks, tools and data of another package of its shape
        envs.__path__ = [str(Path(domain_path) / "tau_bench" / "envs")]
        sys.modules.pop("tau_bench.envs.tool")
    cache_data(importlib.import_module(f"tau_bench.envs.{env}.env"))
    cache_hashes(importlib.import_module("tau_bench.envs.base"))
    return envs.get_env


def cache_data(module: Any) -> None:
    """Read the database once; each conversation gets an equal one of its own, and a constructor needs none."""
    read = module.load_data()
    kept = marshal.dumps(read)
    if marshal.loads(kept) != read:  # noqa: S302 - our own bytes
        raise SystemExit("The database does not survive being copied; its load cannot be cached.")
    module.load_data = lambda: read if SCRIPT.after is CONSTRUCTOR else marshal.loads(kept)  # noqa: S302 - our own bytes


def cache_hashes(base: Any) -> None:
    """Let the original hash each entity of a database once, and put the texts together as it would."""
    original, checked = base.Env.get_data_hash, False
    known: dict[bytes, str] = {}

    def text_of(entity: Any) -> str:
        key = marshal.dumps(entity, 2)
        if key not in known:
            known[key] = repr(base.to_hashable(entity))
        return known[key]

    def as_tuple(entries: dict[str, Any], text: Any) -> str:
        parts = [f"({key!r}, {text(each)})" for key, each in sorted(entries.items())]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

    def get_data_hash(self: Any) -> str:
        text = as_tuple(self.data, lambda each: as_tuple(each, text_of) if isinstance(each, dict) else text_of(each))
        self.hashes = [*getattr(self, "hashes", []), hashlib.sha256(text.encode("utf-8")).hexdigest()]
        nonlocal checked
        if not checked and original(self) != self.hashes[-1]:
            raise SystemExit("The original hashes a database in another way than is known here.")
        checked = True
        return str(self.hashes[-1])

    base.Env.get_data_hash = get_data_hash


def play(job: dict[str, Any], case: dict[str, Any], get_env: Any) -> dict[str, Any]:
    """Run one conversation as the original's `run` does, and return its requests and its end, as a trace has them."""
    SCRIPT.begin({}, CONSTRUCTOR)
    random.seed(case["seed"])
    where = {"user_provider": "openai", "task_index": case["index"]}
    env = get_env(job["env"], job["user_strategy"], USER_MODEL, job["split"], **where)
    constructor = len(SCRIPT.requests)
    SCRIPT.begin(case["answers"], case["after"])
    # The task with the arguments that it had at first.
    env.tasks[env.task_index] = env.task = copy.deepcopy(PRISTINE.setdefault(env.task_index, env.task))
    agent = make_agent(job, env)
    reward, scored, messages, end = 0.0, None, [], ""
    try:
        solved = agent.solve(env=env, task_index=case["index"])
        reward, scored, messages = solved.reward, solved.info.get("reward_info"), solved.messages
        end = "" if scored else "step_limit"
    except Exception as error:  # noqa: BLE001 - the original's `run` makes a reward of 0 of any
        end = f"{type(error).__name__}: {error}"
    return {
        "case": case["name"],
        "requests": SCRIPT.requests,
        "messages": [*map(canonical, messages)],
        "reward": reward,
        "db": len(set(env.hashes)) == 1 if scored else None,
        "outputs": scored["info"].get("outputs", {}) if scored else {},
        "end": end,
        "constructor": constructor,
    }


def make_agent(job: dict[str, Any], env: Any) -> Any:
    """Return the original's agent for a strategy."""
    common = {"tools_info": env.tools_info, "wiki": env.wiki, "model": AGENT_MODEL, "provider": "openai"}
    if job["strategy"] == "fc":
        return agents("tool_calling_agent").ToolCallingAgent(**common)
    if job["strategy"] == "few-shot":
        return agents("few_shot_agent").FewShotToolCallingAgent(**common, few_shot_displays=job["displays"])
    return agents("chat_react_agent").ChatReActAgent(**common, use_reasoning=job["strategy"] == "react")


def agents(name: str) -> Any:
    """Return a module of the original's agents."""
    return importlib.import_module(f"tau_bench.agents.{name}")


if __name__ == "__main__":
    main()
