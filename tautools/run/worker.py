"""Runs one conversation: claim it, run it, store it, release the claim.

Whatever touches the disk happens in a thread of its own: disks of clusters stall, and a stall in the event loop would
show as latency of the models.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

from tautools.bench import ask_judge, conversation_seed, needs_judge, run_conversation, with_verdicts
from tautools.records import Outcome
from tautools.run.claims import Claims
from tautools.run.ledger import AwaitingJudge, read_awaiting_judge
from tautools.run.progress import CallCounts
from tautools.run.trajectory import tool_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tautools.llm.types import CompletionClient
    from tautools.records import CallRecord, CommitRow, Conversation
    from tautools.run.claims import Claim
    from tautools.run.ledger import Key, ResultsWriter
    from tautools.run.plan import Cell, Pair
    from tautools.run.progress import EventSink

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
                ended = await self._stored_for_judge(pair, await self._run(pair, claim, client))
            return await self._commit(pair, await self._judged(ended, client))
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

    async def _stored_for_judge(self, pair: Pair, conversation: Conversation) -> AwaitingJudge:
        """Return a conversation with what it cost; when a judge is to be asked, it is on the disk before that."""
        ended = AwaitingJudge(conversation=conversation, counts=self.counts.pop(pair))
        if self._needs_judge(conversation):
            await asyncio.shield(self._on_disk(self._writer.awaiting_judge, ended))
            self._awaiting_judge[pair] = ended
        return ended

    def _needs_judge(self, conversation: Conversation) -> bool:
        task = self._cell.domain.tasks[conversation.task_id]
        return self._cell.setting.judge is not None and needs_judge(task, conversation.outcome)

    async def _judged(self, ended: AwaitingJudge, client: CompletionClient) -> AwaitingJudge:
        """Return a conversation with its verdicts, where it needs any."""
        conversation, domain = ended.conversation, self._cell.domain
        if not self._needs_judge(conversation):
            return ended
        verdicts = await ask_judge(domain, domain.tasks[conversation.task_id], conversation, client)
        return ended.model_copy(update={"conversation": with_verdicts(conversation, verdicts)})

    async def _commit(self, pair: Pair, ended: AwaitingJudge) -> TrialResult:
        conversation = ended.conversation
        if conversation.outcome is Outcome.USER_ERROR and self._user_errors[pair] < REPEATS_AFTER_USER_ERROR:
            self._user_errors[pair] += 1
            message = conversation.error or "The user model failed."
            self._sink.emit("user_error", message, at=pair, times=self._user_errors[pair])
            return Skipped.USER_ERROR
        counts = dict(Counter(ended.counts) + Counter(self.counts.pop(pair))) | {"tool_calls": tool_calls(conversation)}
        conversation = conversation.model_copy(update={"simulated": self._cell.setting.simulated})
        committing = asyncio.ensure_future(self._on_disk(self._writer.commit, conversation, counts))
        try:
            return await asyncio.shield(committing)
        except asyncio.CancelledError:
            return await committing  # it is finished: stored, whoever asks to stop now

    def _finished_row(self, key: Key) -> CommitRow | None:
        return self._cell.ledger.refresh().row(key)

    async def _on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, lambda: work(*args, **kwargs))
