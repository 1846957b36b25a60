"""Runs one conversation: claim it, run it, store it, release the claim.

`running/<task>-<trial>.jsonl` is claim and live transcript in one: made exclusively by the process that runs the
conversation, a line for its owner and then one for each message, removed when the conversation ends. Claims only make
repeats between processes rare, the ledger settles them. A claim is dropped when its process is gone (same host), or
when nobody has touched it for a while.

Whatever touches the disk happens in a thread of its own: disks of clusters stall, and a stall in the event loop would
show as latency of the models.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tautools.bench import ask_judge, conversation_seed, needs_judge, run_conversation, with_verdicts
from tautools.errors import TautoolsError
from tautools.files import ensure_folder, read_lines
from tautools.llm.types import REFUSAL_CHECK, CompletionClient
from tautools.records import CallRecord, CommitRow, Outcome
from tautools.run.folder import SettingFolder
from tautools.run.ledger import (
    FLAG_COUNT,
    AwaitingJudge,
    EventSink,
    ResultsWriter,
    read_awaiting_judge,
    read_events,
    read_ledger,
)
from tautools.run.plan import Cell, Pair
from tautools.run.trajectory import interleaved
from tautools.servers.registry import Registry
from tautools.shell import process_alive, this_process

STALE_S = 120.0
"""A claim that was not touched for so long has no owner any more [s]."""

HEARTBEAT_S = 20.0
"""How often claims are touched [s]; a sixth of that."""

RUNNING = "running"


class Running(BaseModel):
    """A conversation that is running, as its claim tells: its owner in the first line, then the messages so far."""

    model_config = ConfigDict(frozen=True)

    path: Path
    host: str
    pid: int
    process_started_at: float
    writer: str
    task_id: str
    trial: int
    started_at: float
    messages: list[dict[str, Any]] = []


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
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", task_id)[:40].lstrip(".")
        digest = "" if readable == task_id else f"-{hashlib.sha256(task_id.encode()).hexdigest()[:12]}"
        path = ensure_folder(self._folder) / f"{readable}{digest}-{trial}.jsonl"
        for _ in range(2):
            try:
                claim = Claim(path, path.open("xb", buffering=0))
            except FileExistsError:
                if not _abandoned(path) or not _take_away(path, self._writer):
                    return None
                continue
            me = this_process()
            owner = {"host": socket.gethostname(), "pid": me.pid, "process_started_at": me.started_at}
            which = {"writer": self._writer, "task_id": task_id, "trial": trial, "started_at": time.time()}
            claim.write(owner | which)
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
    claims = (_read_claim(path) for path in (folder / RUNNING).glob("*.jsonl") if not _abandoned(path))
    return sorted((each for each in claims if each is not None), key=lambda each: each.started_at)


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
        claim = (which.path, which.started_at)
        latest = next((each for each in running(folder.path) if (each.path, each.started_at) == claim), None)
    row = read_ledger(folder.path).get((folder.id, which.task_id, which.trial))
    if row is not None and row.writer == which.writer:
        yield from interleaved(folder.conversation(row))[seen:]


def _abandoned(path: Path) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    owner = _read_claim(path)
    if age_s > STALE_S or owner is None or owner.host != socket.gethostname():
        return age_s > STALE_S
    return not process_alive(owner.pid, owner.process_started_at)


def _read_claim(path: Path) -> Running | None:
    """Read the lines of a claim that are whole; None when its owner's is not among them."""
    lines: list[Any] = []
    for line in read_lines(path):
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    try:
        return Running(**lines[0], path=path, messages=lines[1:])
    except (IndexError, TypeError, ValidationError):
        return None


def _take_away(path: Path, writer: str) -> bool:
    """Remove an abandoned claim; of several processes that try, one succeeds."""
    aside = path.with_name(f".{path.name}.{writer}.gone")
    try:
        path.rename(aside)
    except OSError:
        return False
    aside.unlink(missing_ok=True)
    return True


class CallCounts:
    """Counts what each running conversation asks of the models."""

    def __init__(self) -> None:
        self.total = 0
        self._of: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)

    def add(self, record: CallRecord) -> None:
        """Count one call; only those that succeeded count for the conversation."""
        self.total += 1
        if not record.fault and record.purpose != REFUSAL_CHECK:
            self._of[record.task_id, record.trial].update(
                {f"{record.role.value}_calls": 1},
                prompt_tokens=record.prompt_tokens or 0,
                cached_tokens=record.cached_tokens or 0,
                output_tokens=record.output_tokens or 0,
                **{f"{FLAG_COUNT}{record.role.value} {flag}": 1 for flag in record.flags},
            )

    def pop(self, pair: tuple[str, int]) -> dict[str, int]:
        """Return a conversation's counts by the names of `CommitRow`, flags after `FLAG_COUNT`, and forget them."""
        return dict(self._of.pop(pair, Counter()))


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
    """Runs conversations of one cell; its ledger says what others have finished, and is read again before each."""

    def __init__(self, cell: Cell, *, writer: ResultsWriter, sink: EventSink) -> None:
        self.counts = CallCounts()
        self._cell = cell
        self._writer = writer
        self._sink = sink
        # By any writer, before this run and in it.
        events = [each for each in read_events(cell.folder, "user_error") if each.setting_id == cell.setting.id]
        self._user_errors = Counter((each.task_id, each.trial or 0) for each in events)
        self._awaiting_judge = read_awaiting_judge(cell.folder, cell.setting.id) if cell.setting.judge else {}
        self._claims = Claims(cell.folder, writer.name)
        self._warmed: set[str] = set()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="tautools-disk")

    def on_call(self, record: CallRecord) -> None:
        """Take one model call, finished or failed."""
        self.counts.add(record)
        self._writer.call(record)
        if record.cold and not record.fault and record.endpoint not in self._warmed:
            self._warmed.add(record.endpoint)
            self._disk.submit(self._note_warm, record.endpoint)

    async def run_trial(self, pair: Pair, client: CompletionClient) -> TrialResult:
        """Run one conversation and return its row, or why there is none.

        It raises `ModelCallError` when it was lost to the infrastructure, with nothing recorded but its calls, and
        `FilesError` when the disk does not take it.
        """

        def finished_row() -> CommitRow | None:
            return self._cell.ledger.refresh().row(self._cell.key(pair))

        claim = await self._on_disk(self._claims.take, *pair)
        if claim is None:
            return await self._on_disk(finished_row) or Skipped.ELSEWHERE
        try:
            row = await self._on_disk(finished_row)
            if row is not None:
                return row
            ended = self._awaiting_judge.get(pair) or await self._run(pair, claim, client)
            return await self._commit(pair, await self._judged(pair, ended, client))
        finally:
            self.counts.pop(pair)
            self._disk.submit(self._claims.release, claim)

    def _note_warm(self, base_url: str) -> None:
        """Note in the registry that a server has answered a run; that it cannot be noted costs a mark, not the run."""
        registry = Registry(self._cell.workspace)
        names = {each.base_url: each.name for part in self._cell.models.endpoints.values() for each in part}
        with contextlib.suppress(TautoolsError, OSError):
            name = names.get(base_url)
            known = registry.list() if name is None else [registry.find(name)] if name else []
            for record in known:
                if record is not None and record.base_url == base_url:
                    registry.write_warm(record)

    async def keep_claims(self) -> None:
        """Tell other processes, again and again, that the conversations claimed here are alive."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._on_disk(self._claims.touch)

    async def close(self) -> None:
        """Finish what the disk still has to do, and give every claim up."""
        await asyncio.to_thread(self._disk.shutdown)
        self._claims.close()

    async def _run(self, pair: Pair, claim: Claim, client: CompletionClient) -> AwaitingJudge:
        cell, (task_id, trial) = self._cell, pair
        conversation = await run_conversation(
            cell.domain,
            cell.domain.tasks[task_id],
            approach=cell.approach,
            client=client,
            limits=cell.run.limits,
            trial=trial,
            seed=conversation_seed(cell.run.seed, task_id, trial),
            seed_rule=cell.setting.seed_rule,
            repeat=self._user_errors[pair],
            setting_id=cell.setting.id,
            on_message=claim.write,
        )
        return AwaitingJudge(conversation=conversation, counts=self.counts.pop(pair))

    async def _judged(self, pair: Pair, ended: AwaitingJudge, client: CompletionClient) -> AwaitingJudge:
        """Return a conversation with its verdicts, where it needs any; it is on the disk before its judge is asked."""
        conversation, domain = ended.conversation, self._cell.domain
        task = domain.tasks[conversation.task_id]
        if self._cell.setting.judge is None or not needs_judge(task, conversation.outcome):
            return ended
        if pair not in self._awaiting_judge:
            await asyncio.shield(self._on_disk(self._writer.awaiting_judge, ended))
            self._awaiting_judge[pair] = ended
        verdicts = await ask_judge(domain, task, conversation, client, seed_rule=self._cell.setting.seed_rule)
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

    async def _on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, lambda: work(*args, **kwargs))
