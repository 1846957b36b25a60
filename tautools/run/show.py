"""Finds one conversation, finished or running, and aligns its actions with its task's reference. Reads only."""

from __future__ import annotations

import json
import time
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.errors import BenchError, ParamsError, RecordError, unknown_name
from tautools.records import Outcome, canonical_json
from tautools.run.folder import read_setting, results_of
from tautools.run.ledger import read_ledger
from tautools.run.trajectory import actions_of, interleaved
from tautools.run.worker import running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tautools.records import CommitRow, Conversation, Setting
    from tautools.run.folder import SettingFolder
    from tautools.run.worker import Running


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

    def fits(folder: SettingFolder) -> bool:
        setting = folder.setting
        models = {None, folder.path.name, setting.agent.model, folder.id}
        return env in {None, setting.env} and strategy in {None, setting.strategy.value} and model in models

    fitting = [folder for folder in every if fits(folder)]
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
        folder = read_setting(each)
        if folder is not None:
            return folder
    raise ParamsError(
        f"{path} is not a folder of results.",
        evidence="It holds no setting.json.",
        next_step="`tautools show` lists the folders of a workspace.",
    )


def choose_row(folder: SettingFolder, task_id: str, trial: int | None) -> CommitRow:
    """Return the row of a task, of its first finished trial when none is given.

    Raises
    ------
    ParamsError
        When it is not finished, naming what is.
    """
    rows = folder.rows()
    row = next((row for row in rows if row.task_id == task_id and trial in {None, row.trial}), None)
    if row is not None:
        return row
    trials = [str(row.trial) for row in rows if row.task_id == task_id]
    tasks = list(dict.fromkeys(row.task_id for row in rows))
    raise unknown_name(
        ParamsError,
        "finished trial" if trials else "finished task",
        str(trial) if trials else task_id,
        trials or tasks,
        of=f"of task {task_id} in {folder.path}" if trials else f"in {folder.path}",
        next_step="Choose one of those, or watch a running one with --follow.",
    )


def now_running(
    folders: Sequence[SettingFolder], *, task_id: str | None = None, trial: int | None = None
) -> list[tuple[SettingFolder, Running]]:
    """Return the conversations that fit and are running now, the longest running of each folder first."""
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
        same = (each for each in running(folder.path) if (each.path, each.owner) == (which.path, which.owner))
        latest = next(same, None)
    row = read_ledger(folder.path).get((folder.id, which.task_id, which.trial))
    if row is not None and row.writer == which.owner.get("writer"):
        yield from interleaved(folder.conversation(row))[seen:]


class MadeCall(NamedTuple):
    """One tool call, as it was made."""

    name: str
    arguments: Any
    """Parsed, or the text when it cannot be parsed."""
    by: str = "assistant"
    """`assistant`, or `user` for a call of the user."""

    def same_tool(self) -> str:
        """Return what calls of one tool have in common."""
        return f"{self.by} {self.name}"

    def same_call(self) -> str:
        """Return what equal calls have in common."""
        return f"{self.same_tool()} {canonical_json(self.arguments)}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"name": self.name, "arguments": self.arguments} | ({} if self.by == "assistant" else {"by": self.by})


class ActionPair(NamedTuple):
    """An expected action and the actual one that stands next to it; either may be missing."""

    expected: MadeCall | None
    actual: MadeCall | None

    @property
    def mark(self) -> str:
        """`same`, `differs`, `missing` or `more`."""
        if self.expected is None:
            return "more"
        if self.actual is None:
            return "missing"
        return "same" if self.expected.same_call() == self.actual.same_call() else "differs"


def made_calls_of(conversation: Conversation, setting: Setting) -> list[MadeCall]:
    """Return the tool calls of a conversation, in order, under any strategy; none when their order is not recorded."""
    try:
        actions = actions_of(conversation, setting)
    except RecordError:
        return []
    return [MadeCall(each.call, _parsed(each.arguments), each.by) for each in actions if each.call]


def expected_of(folder: SettingFolder, task_id: str) -> list[MadeCall] | None:
    """Return a task's reference actions as calls; None when the benchmark is not installed as it was then."""
    try:
        reference = folder.task(task_id).reference
    except BenchError:
        return None
    return [MadeCall(each.name, dict(each.arguments), each.requestor) for each in reference]


def align_actions(expected: Sequence[MadeCall], actual: Sequence[MadeCall]) -> list[ActionPair]:
    """Set actual actions next to the expected ones, in order: equal ones first, then those of one name."""
    pairs: list[ActionPair] = []
    equal = SequenceMatcher(None, [*map(MadeCall.same_call, expected)], [*map(MadeCall.same_call, actual)], False)
    for _, start, end, first, last in equal.get_opcodes():
        pairs += _align_tools(expected[start:end], actual[first:last])
    return pairs


def _align_tools(expected: Sequence[MadeCall], actual: Sequence[MadeCall]) -> Iterator[ActionPair]:
    alike = SequenceMatcher(None, [*map(MadeCall.same_tool, expected)], [*map(MadeCall.same_tool, actual)], False)
    for kind, start, end, first, last in alike.get_opcodes():
        if kind == "equal":
            yield from map(ActionPair, expected[start:end], actual[first:last])
        else:
            yield from (ActionPair(call, None) for call in expected[start:end])
            yield from (ActionPair(None, call) for call in actual[first:last])


def conversation_dict(folder: SettingFolder, row: CommitRow) -> dict[str, Any]:
    """Return everything about one conversation as a program reads it."""
    conversation = folder.conversation(row)
    expected = expected_of(folder, row.task_id)
    return {
        "folder": str(folder.path),
        "setting": folder.setting.model_dump(mode="json"),
        "row": row.model_dump(mode="json"),
        "conversation": conversation.model_dump(mode="json"),
        "expected": None if expected is None else [each.as_dict() for each in expected],
        "actual": [each.as_dict() for each in made_calls_of(conversation, folder.setting)],
    }


def passed_and_scored(rows: Sequence[CommitRow]) -> tuple[int, int]:
    """Return how many conversations passed, and how many have a score."""
    return sum(row.outcome is Outcome.PASSED for row in rows), sum(row.outcome.scored for row in rows)


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
