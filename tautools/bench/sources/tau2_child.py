"""The program that runs in a tau2-bench checkout's own environment.

It is started by its path. The standard library, the files `copy_on_touch.py` and `bounds.py` beside it and the package
`tau2` are all it needs. An environment is made and scored in milliseconds, because entities are shared until they are
touched and only touched ones are compared; the package loads and hashes megabytes each time. What is compared is the
same: the canonical JSON that the package's hash is made of.

Each line of standard input is a request, `{"do": NAME, ...}`; each gets one line of answer, `{"ok": ...}` or
`{"error": ..., "trace": ...}`. Whatever the package prints goes to standard error. It ends when its input does.
"""

import copy
import functools
import hashlib
import importlib
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def _module_beside(name: str) -> Any:
    """Return a module beside this one, which no `import` finds once the program runs."""
    spec = util.spec_from_file_location(f"tautools_{name}", _HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - the file is there
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bounds = _module_beside("bounds")
copy_on_touch = _module_beside("copy_on_touch")


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = _take_pipes()
    # The files in this folder are none of the package's modules.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != _HERE]
    states: dict[int, ChildState] = {}
    handlers = _handlers(Path(sys.argv[1]), states)
    for line in requests:
        request = json.loads(line)
        for number in request.pop("drop", ()):
            states.pop(number, None)
        answers.write(_answer(handlers, request).encode() + b"\n")
        answers.flush()


def _take_pipes() -> tuple[Any, Any]:
    """Return both pipes and point the usual numbers elsewhere: what a tool prints must not get into the answers."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _answer(handlers: Mapping[str, Callable[..., Any]], request: dict[str, Any]) -> str:
    try:
        return json.dumps({"ok": handlers[request.pop("do")](**request)})
    except BaseException as error:  # noqa: BLE001 - a package that calls sys.exit must not end the conversation
        return json.dumps({"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-4000:]})


def _handlers(folder: Path, states: "dict[int, ChildState]") -> dict[str, Callable[..., Any]]:
    """Return what each request does; `states` are the conversations under way, by number."""

    def open_package() -> dict[str, str]:
        sys.path.insert(0, str(folder / "src"))
        package = importlib.import_module("tau2")
        hold_databases()
        return {"file": os.path.realpath(package.__file__ or "")}

    def make_state(env_state: int, env: str, task: str) -> None:
        states[env_state] = ChildState(env, _tasks(env)[task])

    return {
        "hello": lambda: {"python": platform.python_version()},  # before anything of the package is imported
        "open": open_package,
        # Envs without splits are for trying things out, or need more packages.
        "envs": lambda: [name for name in _registry().get_domains() if _registry().get_task_splits_loader(name)],
        "splits": lambda env: list(_registry().get_task_splits_loader(env)()),
        "domain": describe,
        "env_state": make_state,
        "call": lambda env_state, **call: states[env_state].call(**call),
        "reward": lambda env_state, texts: states[env_state].contained_reward(texts),
        "changes": lambda env_state: _changes(states[env_state].environment),
        "expected": lambda env, task: expected(env, _tasks(env)[task]),
        "loaded": lambda env, table, key: _loaded(env).get((table, key)),
    }


_SCORING_CPU_S = 5.0
"""Processor time of one score [s]: the evaluator makes environments anew and does all calls again."""


class ChildState:
    """One conversation's environment, and the calls that were made in it."""

    def __init__(self, env: str, task: Any) -> None:
        self.env = env
        self.task = task
        self.environment = _environment(env, task)
        self.trajectory: list[Any] = []

    def call(self, requestor: str, name: str, arguments: str) -> dict[str, Any]:
        """Call a tool as the package's orchestrator does: the call, then both sides' states brought together."""
        message = _module("data_model.message")
        refused = {"error": True, "arguments": "{}", "unreadable": True}
        if reason := bounds.why_too_large(arguments):
            return {"text": f"Error: {reason}", "flag": "arguments", **refused}
        try:
            given = json.loads(arguments or "{}")
            call = message.ToolCall(id=str(len(self.trajectory)), name=name, arguments=given, requestor=requestor)
        except ValueError as error:  # pydantic's are ValueErrors too
            text = f"Error: The arguments are not a JSON object: {arguments[:200]} ({type(error).__name__})"
            return {"text": text, **refused}
        with bounds.noting_flags() as flags:
            answer = self._answer(message, call)
        speaker = message.UserMessage if requestor == "user" else message.AssistantMessage
        self.trajectory += [speaker(role=requestor, content=None, tool_calls=[call]), answer]
        about = {"error": bool(answer.error), "arguments": json.dumps(given), "flag": " ".join(flags)}
        return {"text": answer.content or "", **about}

    def _answer(self, message: Any, call: Any) -> Any:
        """Return what a call gives back; also where the orchestrator would lose the conversation."""
        try:
            with bounds.limited_cpu():
                answer = self.environment.get_response(call)
                self.environment.sync_tools()
        except (Exception, SystemExit, bounds.OutOfTimeError) as error:  # noqa: BLE001 - what it is called with is a model's
            text = f"Error: {error}"
            return message.ToolMessage(id=call.id, content=text, requestor=call.requestor, role="tool", error=True)
        return answer

    def contained_reward(self, texts: list[str]) -> dict[str, Any]:
        """Score, and give nothing to what the evaluator cannot score although it scores an untouched environment."""
        _module("evaluator.evaluator")  # imported before the time is taken
        try:
            with bounds.limited_cpu(_SCORING_CPU_S):
                return self.reward(texts)
        except (Exception, SystemExit, bounds.OutOfTimeError) as error:  # noqa: BLE001 - what it scores is a model's
            ChildState(self.env, self.task).reward([])
            return {"reward": 0.0, "unscorable": f"{type(error).__name__}: {error}"}

    def reward(self, texts: list[str]) -> dict[str, Any]:
        """Score by the package's evaluator, as if the user had ended the conversation now.

        Natural-language assertions ask a model, so they are taken out of the basis and left to the run's judge.
        """
        message, simulation = _module("data_model.message"), _module("data_model.simulation")
        evaluator = _module("evaluator.evaluator")
        spoken = [message.AssistantMessage(role="assistant", content=text) for text in texts if text.strip()]
        run = simulation.SimulationRun(
            id="",
            task_id=self.task.id,
            start_time="",
            end_time="",
            duration=0.0,
            termination_reason=simulation.TerminationReason.USER_STOP,
            messages=[*self.trajectory, *spoken],
        )
        reward = evaluator.evaluate_simulation(
            simulation=run,
            task=_without_judge(self.task),
            evaluation_type=evaluator.EvaluationType.ALL,
            solo_mode=False,
            domain=self.env,
        )
        info: dict[str, Any] = reward.model_dump(mode="json")
        return info


def describe(env: str, split: str) -> dict[str, Any]:
    """Return what the other side needs to know of an env: prompts and tools as the package's own parties get them."""
    environment = _registry().get_env_constructor(env)()
    tools, user_tools = environment.get_tools(), _user_tools(environment, None)
    tasks = _registry().get_tasks_loader(env)(split)
    orchestrator, config = _module("orchestrator.orchestrator"), _module("config")
    user = _module("user.user_simulator_base")
    agent = _module("agent.llm_agent").LLMAgent(
        tools=tools, domain_policy=environment.get_policy(), llm="", llm_args={}
    )
    return {
        "policy": environment.get_policy(),
        "agent_system": agent.system_prompt,
        "tools": [tool.openai_schema for tool in tools],
        "user_tools": [tool.openai_schema for tool in user_tools or ()],
        "tasks": [_described_task(environment, task) for task in tasks],
        "protocol": {
            "agent_opening": orchestrator.DEFAULT_FIRST_AGENT_MESSAGE.content,
            "stop_words": [user.STOP, user.TRANSFER, user.OUT_OF_SCOPE],
            "max_rounds": config.DEFAULT_MAX_STEPS,
            "max_steps": config.DEFAULT_MAX_STEPS,
            "max_errors": config.DEFAULT_MAX_ERRORS,
        },
        "database": hashlib.sha256(json.dumps(sorted(_loaded(env).items())).encode()).hexdigest(),
    }


def _described_task(environment: Any, task: Any) -> dict[str, Any]:
    tools = _user_tools(environment, task.user_tools)
    user = _module("user.user_simulator").UserSimulator(
        llm="", instructions=str(task.user_scenario), tools=tools, llm_args={}
    )
    start = task.initial_state
    return {
        "user_system": user.system_prompt,
        "user_tools": [tool.name for tool in tools or ()],
        "begun": start is not None and bool(start.message_history),
        "task": task.model_dump(mode="json"),
    }


def _user_tools(environment: Any, names: list[str] | None) -> Any:
    """Return the customer's tools, None when there are none: the package's own rule when it builds a customer."""
    if environment.user_tools is None:
        return None
    return environment.get_user_tools(include=names) or None


def expected(env: str, task: Any) -> list[tuple[str, str, str | None]] | None:
    """Do what the package's evaluator does to learn the state that is wanted: the reference, each call as it stands."""
    criteria = task.evaluation_criteria
    if criteria is None or (criteria.actions is None and criteria.env_assertions is None):
        return None
    wanted = _environment(env, task)
    for action in criteria.actions or ():
        try:
            wanted.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
        except Exception as error:  # noqa: BLE001 - the evaluator goes on too
            sys.stderr.write(f"The reference of {task.id} calls {action.name} and gets: {error}\n")
    return _changes(wanted)


def _environment(env: str, task: Any) -> Any:
    """Return a fresh environment in the state that the task starts from."""
    environment = _registry().get_env_constructor(env)()
    _bound_calculations(environment)
    start = task.initial_state
    environment.set_state(
        initialization_data=None if start is None else start.initialization_data,
        initialization_actions=None if start is None else start.initialization_actions,
        message_history=[],
    )
    environment.sync_tools()
    return environment


def _bound_calculations(environment: Any) -> None:
    """Let the modules of an environment's tools evaluate within bounds."""
    for kit in (environment.tools, environment.user_tools):
        for name in {each.__module__ for each in type(kit).__mro__}:
            if name.startswith("tau2."):
                vars(sys.modules[name]).setdefault("eval", bounds.bounded_eval)


def _without_judge(task: Any) -> Any:
    criteria = task.evaluation_criteria
    if criteria is None:
        return task
    basis = [each for each in criteria.reward_basis if each.value != "NL_ASSERTION"]
    return task.model_copy(update={"evaluation_criteria": criteria.model_copy(update={"reward_basis": basis})})


@functools.cache
def _tasks(env: str) -> dict[str, Any]:
    return {task.id: task for task in _registry().get_tasks_loader(env)(None)}


def hold_databases() -> None:
    """Let the package's databases be loaded once and share their entities."""
    database, kit = _module("environment.db").DB, _module("environment.toolkit").ToolKitBase
    load, whole_hash = database.load.__func__, kit.get_db_hash

    @functools.cache
    def loaded(cls: Any, path: Any) -> tuple[Any, dict[str, Any]]:
        original = load(cls, path)
        return original, {name: _shareable(value) for name, value in vars(original).items()}

    def shared_load(cls: Any, path: Any) -> Any:
        original, parts = loaded(cls, path)
        return original.model_copy(update={name: _view(part) for name, part in parts.items()})

    def quick_hash(self: Any) -> str:
        tables = vars(self.db) if self.db is not None else {}
        if not any(isinstance(table, copy_on_touch.TouchedTable) for table in tables.values()):
            return str(whole_hash(self))
        parts = {name: _hashed_part(table) for name, table in tables.items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    database.load = classmethod(shared_load)
    kit.get_db_hash = quick_hash


def _shareable(value: Any) -> Any:
    if isinstance(value, dict) and all(hasattr(entity, "model_copy") for entity in value.values()):
        return copy_on_touch.LoadedTable(value)
    return [_shareable(each) for each in value] if isinstance(value, list) else value


def _view(part: Any) -> Any:
    """Return one conversation's view of a part of the database."""
    if isinstance(part, copy_on_touch.LoadedTable):
        return copy_on_touch.TouchedTable(part)
    return [_view(each) for each in part] if isinstance(part, list) else copy.deepcopy(part)


def _hashed_part(table: Any) -> Any:
    return table.changes() if isinstance(table, copy_on_touch.TouchedTable) else copy_on_touch.plain(table)


def _changes(environment: Any) -> list[tuple[str, str, str | None]]:
    """List what differs from the databases as loaded: table, key and canonical text, None for what is gone."""
    loaded = _loaded(environment.get_domain_name())
    changes: list[tuple[str, str, str | None]] = []
    rest: dict[tuple[str, str], str] = {}
    shared_tables = set()
    for name, table in _tables(environment):
        if isinstance(table, copy_on_touch.TouchedTable):
            shared_tables.add(name)
            changes += [(name, key, text) for key, text in sorted(table.changes().items())]
        else:
            rest.update(_entities(name, table))
    changes += [(*place, text) for place, text in rest.items() if loaded.get(place) != text]
    changes += [(*place, None) for place in loaded if place[0] not in shared_tables and place not in rest]
    return changes


@functools.cache
def _loaded(env: str) -> dict[tuple[str, str], str]:
    """Return the canonical text of each entity as loaded, by table and key."""
    entities: dict[tuple[str, str], str] = {}
    for name, table in _tables(_registry().get_env_constructor(env)()):
        entities.update(_entities(name, table))
    return entities


def _tables(environment: Any) -> list[tuple[str, Any]]:
    """List the tables of both sides by name; the customer's is `user`, with its parts by their names."""
    kits = (environment.tools, environment.user_tools)
    own, user = (dict(vars(kit.db)) if kit is not None and kit.db is not None else {} for kit in kits)
    return [*own.items(), *([("user", user)] if user else [])]


def _entities(table: str, value: Any) -> dict[tuple[str, str], str]:
    """Return a table's entities: of a list by the entity's own id, of a single value without a key."""
    text = copy_on_touch.canonical_text
    if isinstance(value, dict):
        return {(table, str(key)): text(entity) for key, entity in value.items()}
    if isinstance(value, list):
        return {(table, _id_of(entity, index)): text(entity) for index, entity in enumerate(value)}
    return {(table, ""): text(value)}


def _id_of(entity: Any, index: int) -> str:
    names = [name for name in getattr(entity, "__dict__", ()) if name == "id" or name.endswith("_id")]
    return str(getattr(entity, names[0])) if names else str(index)


def _registry() -> Any:
    return _module("registry").registry


def _module(name: str) -> Any:
    return importlib.import_module("tau2." + name)


if __name__ == "__main__":
    main()
