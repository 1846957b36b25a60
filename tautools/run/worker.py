"""Runs one conversation: claim it, run it, store it, release the claim.

`running/<task>-<trial>.jsonl` is claim and live transcript in one: made exclusively by the process that runs the
conversation, a line for its owner and then one for each message, removed when the conversation ends. Claims only make
repeats between processes rare, the ledger settles them. A claim is dropped when its process is gone (same host), or
when nobody has touched it for a while.

Whatever touches the disk happens in a thread of its own: disks of clusters stall, and a stall in the event loop would
show as latency of the models.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from tautools.bench import ask_judge, conversation_seed, needs_judge, run_conversation, with_verdicts
from tautools.files import ensure_folder, read_lines
from tautools.records import Outcome
from tautools.run.ledger import AwaitingJudge, read_awaiting_judge
from tautools.run.progress import CallCounts
from tautools.shell import process_alive, this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tautools.llm.types import CompletionClient
    from tautools.records import CallRecord, CommitRow, Conversation
    from tautools.run.ledger import Key, ResultsWriter
    from tautools.run.plan import Cell, Pair
    from tautools.run.progress import EventSink

STALE_S = 120.0
"""A claim that was not touched for so long has no owner any more [s]."""

RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Running:
    """A conversation that is running, as far as it has come."""

    path: Path
    owner: Mapping[str, Any]
    messages: list[dict[str, Any]]

    @property
    def task_id(self) -> str:
        """The task."""
        return str(self.owner.get("task_id", ""))

    @property
    def trial(self) -> int:
        """The trial, from 0."""
        return int(self.owner.get("trial", 0))


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """The right to run one conversation, until it is released."""

    path: Path
    file: IO[bytes]

    def write(self, line: Mapping[str, Any]) -> None:
        """Add one line to the live transcript; a disk that refuses it costs the transcript, not the conversation."""
        with contextlib.suppress(OSError, ValueError):
            self.file.write(json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")


class Claims:
    """Takes claims in one setting's folder on behalf of one writer."""

    def __init__(self, folder: Path, writer: str) -> None:
        self._folder = folder / RUNNING
        self._writer = writer
        self._claims: set[Claim] = set()

    def take(self, task_id: str, trial: int) -> Claim | None:
        """Return the claim on a conversation, or None while another process has it."""
        path = ensure_folder(self._folder) / f"{_file_name(task_id, trial)}.jsonl"
        for _ in range(2):
            try:
                claim = Claim(path, path.open("xb", buffering=0))
            except FileExistsError:
                if not _abandoned(path) or not _take_away(path, self._writer):
                    return None
                continue
            me = this_process()
            owner = {"host": socket.gethostname(), "pid": me.pid, "process_started_at": me.started_at}
            claim.write(
                {**owner, "writer": self._writer, "task_id": task_id, "trial": trial, "started_at": time.time()}
            )
            self._claims.add(claim)
            return claim
        return None

    def release(self, claim: Claim) -> None:
        """Give a claim up and remove its transcript."""
        self._claims.discard(claim)
        claim.file.close()
        with contextlib.suppress(OSError):
            claim.path.unlink()

    def touch(self) -> None:
        """Tell other processes that the owner of every claim is alive."""
        for claim in list(self._claims):
            with contextlib.suppress(OSError):
                os.utime(claim.path)

    def close(self) -> None:
        """Give everything up and remove what dead processes left."""
        for claim in list(self._claims):
            self.release(claim)
        for path in self._folder.glob("*.jsonl"):
            if _abandoned(path):
                _take_away(path, self._writer)


def running(folder: Path) -> list[Running]:
    """Return the conversations of a setting that are running now, the longest running first."""
    now = []
    for path in (folder / RUNNING).glob("*.jsonl"):
        lines = list(_objects(path))
        if lines and not _abandoned(path):
            now.append(Running(path, lines[0], lines[1:]))
    return sorted(now, key=lambda each: float(each.owner.get("started_at", 0.0)))


def _abandoned(path: Path) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    if age_s > STALE_S:
        return True
    owner = next(_objects(path), None)
    if owner is None or owner.get("host") != socket.gethostname():
        return False
    try:
        return not process_alive(int(owner["pid"]), float(owner["process_started_at"]))
    except (KeyError, TypeError, ValueError):
        return False


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a claim that are whole."""
    for line in read_lines(path):
        with contextlib.suppress(ValueError):
            parsed = json.loads(line)
            if isinstance(parsed, dict):
                yield parsed


def _take_away(path: Path, writer: str) -> bool:
    """Remove an abandoned claim; of several processes that try, one succeeds."""
    aside = path.with_name(f".{path.name}.{writer}.gone")
    try:
        path.rename(aside)
    except OSError:
        return False
    aside.unlink(missing_ok=True)
    return True


def _file_name(task_id: str, trial: int) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", task_id)[:40].lstrip(".")
    digest = "" if readable == task_id else f"-{hashlib.sha256(task_id.encode()).hexdigest()[:12]}"
    return f"{readable}{digest}-{trial}"


P = ParamSpec("P")
T = TypeVar("T")

REPEATS_AFTER_USER_ERROR = 2
"""How often a conversation in which the user model failed is pending again, over all runs; the next one is recorded."""


class Skipped(Enum):
    """Why a conversation did not end in a commit row."""

    ELSEWHERE = "another process runs it"
    USER_ERROR = "the user model failed; it is pending again"


TrialResult: TypeAlias = "CommitRow | Skipped"


class Worker:
    """Runs conversations of one cell.

    Parameters
    ----------
    cell : Cell
        The plan; its ledger says what other writers have finished and is read again before each conversation.
    writer, sink
        Where results and events go.
    user_errors : mapping of pair to int
        How often each conversation ended in a user_error before.
    """

    def __init__(self, cell: Cell, *, writer: ResultsWriter, sink: EventSink, user_errors: Mapping[Pair, int]) -> None:
        self.counts = CallCounts()
        self._cell = cell
        self._writer = writer
        self._sink = sink
        self._user_errors = Counter(user_errors)
        self._awaiting_judge = read_awaiting_judge(cell.folder, cell.setting.id) if cell.setting.judge else {}
        self._claims = Claims(cell.folder, writer.name)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="tautools-disk")

    def on_call(self, record: CallRecord) -> None:
        """Take one model call, finished or failed."""
        self.counts.add(record)
        self._writer.call(record)

    async def run_trial(self, pair: Pair, client: CompletionClient) -> TrialResult:
        """Run one conversation and return its row, or why there is none.

        Raises
        ------
        ModelCallError
            When it was lost to the infrastructure; nothing is recorded but its calls.
        FilesError
            When the disk does not take it.
        """
        key = self._cell.key(pair)
        claim = await self._on_disk(self._claims.take, *pair)
        if claim is None:
            return await self._on_disk(self._finished_row, key) or Skipped.ELSEWHERE
        try:
            row = await self._on_disk(self._finished_row, key)
            if row is not None:
                return row
            ended = self._awaiting_judge.get(pair)
            if ended is None:
                conversation = await self._run(pair, claim, client)
                ended = AwaitingJudge(conversation=conversation, counts=self.counts.pop(pair))
            return await self._commit(pair, await self._judged(pair, ended, client))
        finally:
            self.counts.pop(pair)
            self._disk.submit(self._claims.release, claim)

    async def touch_claims(self) -> None:
        """Tell other processes that the conversations claimed here are alive."""
        await self._on_disk(self._claims.touch)

    async def close(self) -> None:
        """Finish what the disk still has to do, and give every claim up."""
        await asyncio.to_thread(self._disk.shutdown)
        self._claims.close()

    async def _run(self, pair: Pair, claim: Claim, client: CompletionClient) -> Conversation:
        cell, (task_id, trial) = self._cell, pair
        return await run_conversation(
            cell.domain,
            cell.domain.tasks[task_id],
            approach=cell.approach,
            client=client,
            limits=cell.run.limits,
            trial=trial,
            seed=conversation_seed(cell.run.seed, task_id, trial),
            setting_id=cell.setting.id,
            on_message=claim.write,
        )

    async def _judged(self, pair: Pair, ended: AwaitingJudge, client: CompletionClient) -> AwaitingJudge:
        """Return a conversation with its verdicts, where it needs any; it is on the disk before its judge is asked."""
        conversation, domain = ended.conversation, self._cell.domain
        task = domain.tasks[conversation.task_id]
        if self._cell.setting.judge is None or not needs_judge(task, conversation.outcome):
            return ended
        if pair not in self._awaiting_judge:
            await asyncio.shield(self._on_disk(self._writer.awaiting_judge, ended))
            self._awaiting_judge[pair] = ended
        verdicts = await ask_judge(domain, task, conversation, client)
        return ended.model_copy(update={"conversation": with_verdicts(conversation, verdicts)})

    async def _commit(self, pair: Pair, ended: AwaitingJudge) -> TrialResult:
        conversation = ended.conversation
        if conversation.outcome is Outcome.USER_ERROR and self._user_errors[pair] < REPEATS_AFTER_USER_ERROR:
            self._user_errors[pair] += 1
            message = conversation.error or "The user model failed."
            self._sink.emit("user_error", message, at=pair, times=self._user_errors[pair])
            return Skipped.USER_ERROR
        counts = dict(Counter(ended.counts) + Counter(self.counts.pop(pair)))
        conversation = conversation.model_copy(update={"simulated": self._cell.setting.simulated})
        committing = asyncio.ensure_future(self._on_disk(self._writer.commit, conversation, counts))
        try:
            return await asyncio.shield(committing)
        except asyncio.CancelledError:
            return await committing  # it is finished: stored, even when a stop is asked for now

    def _finished_row(self, key: Key) -> CommitRow | None:
        return self._cell.ledger.refresh().row(key)

    async def _on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, lambda: work(*args, **kwargs))
