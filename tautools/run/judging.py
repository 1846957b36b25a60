"""A judge for finished conversations: nothing is asked again but the judge, and what nobody judged is named.

Results of a setting without a judge become results of the same setting with one, in a folder of their own: the
conversations are copied, with verdicts where their tasks assert something. Nothing that was written is changed, and
what is judged already is not judged again. Conversations that a run left without a verdict are judged in place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.bench import ask_judge, judge_texts, needs_judge, with_verdicts
from tautools.bench.judge import BASIS
from tautools.errors import BenchError, ModelCallError, ParamsError
from tautools.llm import ModelClient, Retry
from tautools.run.exporters.tau_bench import write_view
from tautools.run.folder import domain_of, find_folder, make_folder, task_of
from tautools.run.ledger import (
    AwaitingJudge,
    Ledger,
    ResultsWriter,
    count_awaiting_judge,
    read_awaiting_judge,
    read_conversation,
    rows_of,
)
from tautools.run.plan import judging_note, model_config_of
from tautools.run.progress import CallCounts
from tautools.servers.addresses import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tautools.bench.types import Domain
    from tautools.llm.types import Endpoint
    from tautools.params.models import RoleParams
    from tautools.records import CallRecord, ModelConfig, Setting
    from tautools.run.folder import SettingFolder


def folder_judging_note(folder: SettingFolder, task_ids: Iterable[str] | None = None) -> str:
    """Return the note of `judging_note` for the results of a folder; empty when the benchmark is not installed."""
    try:
        known = domain_of(folder).tasks
    except BenchError:
        return ""
    wanted = known if task_ids is None else dict.fromkeys(task_ids)
    tasks = [known[name] for name in wanted if name in known]
    return judging_note(folder.setting, tasks, count_awaiting_judge(folder.path, folder.id))


_COUNT_FIELDS = ("agent_calls", "user_calls", "expert_calls", "prompt_tokens", "cached_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class JudgingResult:
    """What came of judging one folder."""

    folder: Path
    """Where the judged results are."""
    judged: int
    copied: int
    """Conversations whose tasks assert nothing, or that the benchmark did not end."""
    already: int
    pending: int
    cause: str = ""
    """Why some are pending."""


def judge_folder(folder: SettingFolder, role: RoleParams, *, workspace: Path, concurrency: int = 8) -> JudgingResult:
    """Ask a judge about the conversations of a folder that lack a verdict.

    Parameters
    ----------
    folder : SettingFolder
        Results with or without a judge.
    role : RoleParams
        The judge.
    workspace : Path
        Whose `results/` and servers are used.
    concurrency : int
        Conversations judged at a time.

    Raises
    ------
    TautoolsError
        When the benchmark or the judge is not there; nothing is written then.
    """
    domain = domain_of(folder)
    judges = endpoints(role, workspace=workspace, role_name="judge")
    judge = model_config_of(role, judges[0].model)
    before = folder.setting.judge
    if before is not None and before.model == judge.model:
        judge = before  # its sampling is that of the run
    simulated = folder.setting.simulated or any(endpoint.simulated for endpoint in judges)
    setting = _with_judge(folder.setting, domain, judge, simulated=simulated)
    target = find_folder(workspace / "results", setting)
    ledger = Ledger(target.path)
    done = {key[1:] for key in ledger.refresh().rows(setting.id)}
    to_judge = _conversations_to_judge(folder, target.path, setting)
    pending = [each for pair, each in to_judge.items() if pair not in done]
    target = make_folder(target, folder.provenance)
    with contextlib.closing(ResultsWriter(target.path)) as writer:
        pool = _JudgePool(domain, writer, judge, judges, concurrency)
        faults = asyncio.run(pool.run_all(pending))
    rows = ledger.refresh().rows(setting.id).values()
    if rows:
        write_view(target.path, rows, num_trials=max(row.trial for row in rows) + 1, order=list(domain.tasks))
    return JudgingResult(
        folder=target.path,
        judged=pool.judged,
        copied=len(pending) - pool.judged - len(faults),
        already=len(to_judge) - len(pending),
        pending=len(faults),
        cause=str(faults[-1]) if faults else "",
    )


def _with_judge(setting: Setting, domain: Domain, judge: ModelConfig, *, simulated: bool) -> Setting:
    if setting.judge == judge:
        return setting
    if setting.judge is not None:
        raise ParamsError(
            f"These results have a judge, {setting.judge.model}; another one would mix two judges under one score.",
            next_step=f"Name a server of {setting.judge.model}, or judge the results of a run without a judge.",
        )
    basis = setting.reward_basis.removesuffix(f"+{BASIS}")
    return setting.model_copy(
        update={
            "judge": judge,
            "reward_basis": f"{basis}+{BASIS}",
            "prompts": setting.prompts | judge_texts(domain),
            "simulated": simulated,
        }
    )


def _conversations_to_judge(
    folder: SettingFolder, target: Path, setting: Setting
) -> dict[tuple[str, int], AwaitingJudge]:
    """Return what there is to judge, under its new setting: finished conversations, and those that wait."""
    to_judge = read_awaiting_judge(target, setting.id)
    if folder.setting.judge is not None:
        return to_judge
    for row in rows_of(folder):
        if row.outcome.scored and (row.task_id, row.trial) not in to_judge:
            changes = {"setting_id": setting.id, "simulated": setting.simulated}
            conversation = read_conversation(folder.path, row).model_copy(update=changes)
            counts = {name: getattr(row, name) for name in _COUNT_FIELDS}
            to_judge[row.task_id, row.trial] = AwaitingJudge(conversation=conversation, counts=counts)
    return to_judge


class _JudgePool:
    """One judge at work, some conversations at a time."""

    def __init__(
        self, domain: Domain, writer: ResultsWriter, judge: ModelConfig, judges: Sequence[Endpoint], concurrency: int
    ) -> None:
        self.judged = 0
        self._domain = domain
        self._writer = writer
        self._config = judge
        self._endpoints = judges
        self._free = asyncio.Semaphore(concurrency)
        self._counts = CallCounts()

    async def run_all(self, pending: Sequence[AwaitingJudge]) -> list[ModelCallError]:
        """Judge and write each; return the faults of those that stay pending."""
        async with ModelClient(
            lambda _part: self._endpoints, {"judge": self._config}, on_call=self._on_call, retry=Retry()
        ) as client:
            faults = await asyncio.gather(*(self._judge(each, client) for each in pending))
        return [fault for fault in faults if fault is not None]

    def _on_call(self, record: CallRecord) -> None:
        self._counts.add(record)
        self._writer.call(record)

    async def _judge(self, ended: AwaitingJudge, client: ModelClient) -> ModelCallError | None:
        conversation = ended.conversation
        task = task_of(self._domain, conversation.task_id)
        async with self._free:
            if needs_judge(task, conversation.outcome):
                try:
                    verdicts = await ask_judge(self._domain, task, conversation, client)
                except ModelCallError as error:
                    return error
                conversation = with_verdicts(conversation, verdicts)
                self.judged += 1
            asked = self._counts.pop((conversation.task_id, conversation.trial))
            counts = dict(Counter(ended.counts) + Counter(asked))
            self._writer.commit(conversation, counts)
        return None
