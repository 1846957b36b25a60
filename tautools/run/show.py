"""Finds one conversation, finished or running, and aligns its actions with its task's reference. Reads only."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING, Any

from tautools.errors import BenchError, ParamsError, RecordError
from tautools.records import Outcome, canonical_json
from tautools.run.folder import domain_of, read_setting, results_of, task_of
from tautools.run.ledger import read_conversation, read_ledger
from tautools.run.trajectory import actions_of, interleaved
from tautools.run.worker import running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tautools.bench.types import ReferenceAction
    from tautools.records import CommitRow, Conversation, Setting
    from tautools.run.folder import SettingFolder
    from tautools.run.worker import Running


def now_running(
    folders: Sequence[SettingFolder], *, task_id: str | None = None, trial: int | None = None
) -> list[tuple[SettingFolder, Running]]:
    """Return the conversations that are being held now and fit, the longest running of each folder first."""
    return [
        (folder, each)
        for folder in folders
        for each in running(folder.path)
        if task_id in {None, each.task_id} and trial in {None, each.trial}
    ]


def follow(folder: SettingFolder, which: Running, *, poll_s: float = 0.2) -> Iterator[dict[str, Any]]:
    """Yield the messages of a running conversation, those of the past at once, until it ends."""
    seen = 0
    latest: Running | None = which
    while latest is not None:
        yield from latest.messages[seen:]
        seen = len(latest.messages)
        time.sleep(poll_s)
        same = (each for each in running(folder.path) if each.path == which.path)
        latest = next((each for each in same if each.owner == which.owner), None)
    yield from _ended(folder, which)[seen:]


def _ended(folder: SettingFolder, which: Running) -> list[dict[str, Any]]:
    """Return the messages of the conversation as it was finished; none when it was not."""
    row = read_ledger(folder.path).get((folder.id, which.task_id, which.trial))
    if row is None or row.writer != which.owner.get("writer"):
        return []
    return interleaved(read_conversation(folder.path, row))


@dataclass(frozen=True, slots=True)
class MadeCall:
    """One tool call, as it was made."""

    name: str
    arguments: Any
    """Parsed, or the text when it cannot be parsed."""
    by: str = "assistant"
    """`assistant`, or `user` for a call of the customer."""


@dataclass(frozen=True, slots=True)
class ActionPair:
    """An expected action and the actual one that stands beside it; either may be missing."""

    expected: MadeCall | None
    actual: MadeCall | None

    @property
    def mark(self) -> str:
        """`same`, `differs`, `missing` or `more`."""
        if self.expected is None:
            return "more"
        if self.actual is None:
            return "missing"
        return "same" if _same_call(self.expected, self.actual) else "differs"


def choose_folders(
    workspace: Path, *, env: str | None = None, strategy: str | None = None, model: str | None = None
) -> list[SettingFolder]:
    """Return the folders of results that fit; a model fits by its name or by its folder's name.

    Parameters
    ----------
    workspace : Path
        Whose results are looked through.
    env, strategy, model : str, optional
        What a folder must be of; None fits all. A setting's id is taken for `model` too.

    Returns
    -------
    list of SettingFolder
        All of them when nothing is asked for, which may be none.

    Raises
    ------
    ParamsError
        When nothing fits, naming what there is.
    """
    every = results_of(workspace)
    fitting = [
        folder
        for folder in every
        if env in {None, folder.setting.env}
        and strategy in {None, folder.setting.strategy.value}
        and model in {None, folder.path.name, folder.setting.agent.model, folder.id}
    ]
    if fitting or not (env or strategy or model):
        return fitting
    there = "\n".join(f"{each.setting.env} {each.setting.strategy.value} {each.path.name}" for each in every)
    raise ParamsError(
        f"No results of env {env or 'any'}, strategy {strategy or 'any'}, model {model or 'any'}.",
        evidence=f"There are:\n{there}" if there else f"{workspace / 'results'} has no results.",
        next_step="`tautools show` lists them; choose another workspace with --workspace.",
    )


def only_folder(folders: Sequence[SettingFolder]) -> SettingFolder:
    """Return the one folder that fits.

    Raises
    ------
    ParamsError
        When there is none, or several.
    """
    if len(folders) == 1:
        return folders[0]
    raise ParamsError(
        "Several settings have results; one must be meant." if folders else "Nothing has been run here.",
        evidence="\n".join(str(each.path) for each in folders),
        next_step="Add --env, --strategy and --model, or give the folder."
        if folders
        else "Run a cell with `tautools run`, or choose another workspace with --workspace.",
    )


def folder_at(path: Path) -> SettingFolder:
    """Return the folder of results at `path`, or around it.

    Raises
    ------
    ParamsError
        When there is none.
    """
    for each in (path, *path.parents[:2]):
        found = read_setting(each)
        if found is not None:
            return found
    raise ParamsError(
        f"{path} is not a folder of results.",
        evidence="It holds no setting.json.",
        next_step="`tautools show` lists the folders of a workspace.",
    )


def rows_of(folder: SettingFolder) -> list[CommitRow]:
    """Return a setting's finished conversations, by task and trial."""
    rows = [row for row in read_ledger(folder.path).values() if row.setting_id == folder.id]
    return sorted(rows, key=lambda row: (not row.task_id.isdecimal(), row.task_id.zfill(8), row.trial))


def choose_row(folder: SettingFolder, task_id: str, trial: int | None) -> CommitRow:
    """Return the row of a task, of its first finished trial when none is given.

    Raises
    ------
    ParamsError
        When it is not finished, naming what is.
    """
    rows = rows_of(folder)
    found = [row for row in rows if row.task_id == task_id and trial in {None, row.trial}]
    if found:
        return found[0]
    trials = [str(row.trial) for row in rows if row.task_id == task_id]
    tasks = list(dict.fromkeys(row.task_id for row in rows))
    near = get_close_matches(task_id, tasks, n=5, cutoff=0.0)
    raise ParamsError(
        f"Task {task_id}{'' if trial is None else f', trial {trial}'} is not finished in {folder.path}.",
        evidence=f"Finished trials of it: {', '.join(trials)}." if trials else f"Finished tasks: {', '.join(near)} …",
        next_step="Choose one of those, or watch a running one with --follow.",
    )


def made_calls_of(conversation: Conversation, setting: Setting) -> list[MadeCall]:
    """Return the tool calls of a conversation, in order, under any strategy; none when their order is not recorded."""
    try:
        actions = actions_of(conversation, setting)
    except RecordError:
        return []
    return [MadeCall(deed.call, _parsed(deed.arguments), deed.by) for deed in actions if deed.call]


def expected_of(folder: SettingFolder, task_id: str) -> list[ReferenceAction] | None:
    """Return a task's reference actions; None when the benchmark is not at hand as it was then."""
    try:
        return list(task_of(domain_of(folder), task_id).reference)
    except BenchError:
        return None


def align_actions(expected: Sequence[ReferenceAction], actual: Sequence[MadeCall]) -> list[ActionPair]:
    """Set actual actions beside the expected ones, in order: equal ones first, then those of one name."""
    wanted = [MadeCall(action.name, dict(action.arguments), action.requestor) for action in expected]
    pairs: list[ActionPair] = []
    matcher = SequenceMatcher(
        None, [_call_key(did) for did in wanted], [_call_key(did) for did in actual], autojunk=False
    )
    for _, start, end, first, last in matcher.get_opcodes():
        pairs += _by_name(wanted[start:end], actual[first:last])
    return pairs


def conversation_dict(folder: SettingFolder, row: CommitRow) -> dict[str, Any]:
    """Return everything about one conversation as a program reads it."""
    conversation = read_conversation(folder.path, row)
    expected = expected_of(folder, row.task_id)
    wanted = [_call_dict(each.name, each.arguments, each.requestor) for each in expected or ()]
    return {
        "folder": str(folder.path),
        "setting": folder.setting.model_dump(mode="json"),
        "row": row.model_dump(mode="json"),
        "conversation": conversation.model_dump(mode="json"),
        "expected": None if expected is None else wanted,
        "actual": [_call_dict(did.name, did.arguments, did.by) for did in made_calls_of(conversation, folder.setting)],
    }


def _call_dict(name: str, arguments: Any, by: str) -> dict[str, Any]:
    return {"name": name, "arguments": arguments} | ({} if by == "assistant" else {"by": by})


def passed_and_scored(rows: Sequence[CommitRow]) -> tuple[int, int]:
    """Return how many conversations passed, and how many have a score."""
    return sum(row.outcome is Outcome.PASSED for row in rows), sum(row.outcome.scored for row in rows)


def missing_info(conversation: Conversation) -> list[str]:
    """Return what the agent should have told the user and did not."""
    missing = conversation.reward_info.get("missing_info") or ()
    return [str(each) for each in missing]


def _by_name(expected: Sequence[MadeCall], actual: Sequence[MadeCall]) -> list[ActionPair]:
    matcher = SequenceMatcher(
        None, [_tool_key(did) for did in expected], [_tool_key(did) for did in actual], autojunk=False
    )
    pairs: list[ActionPair] = []
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            pairs += map(ActionPair, expected[start:end], actual[first:last])
        else:
            pairs += [ActionPair(did, None) for did in expected[start:end]]
            pairs += [ActionPair(None, did) for did in actual[first:last]]
    return pairs


def _same_call(one: MadeCall, other: MadeCall) -> bool:
    return _call_key(one) == _call_key(other)


def _call_key(did: MadeCall) -> str:
    return f"{_tool_key(did)} {canonical_json(did.arguments)}"


def _tool_key(did: MadeCall) -> str:
    return f"{did.by} {did.name}"


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
