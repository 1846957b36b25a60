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
from tautools.bench.sources import IMPORTED_PREFIX
from tautools.errors import BenchError, ModelCallError, ParamsError
from tautools.llm import ModelClient, Retry
from tautools.run.exporters.tau_bench import write_view
from tautools.run.folder import claim_folder, domain_of, find_folder, task_of
from tautools.run.ledger import AwaitingJudge, ResultsWriter, read_awaiting_judge, read_conversation, read_ledger
from tautools.run.progress import CallCounts, tool_calls
from tautools.run.roles import model_config_of
from tautools.servers import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tautools.bench.types import Domain, Task
    from tautools.llm.types import Endpoint
    from tautools.params.models import RoleParams
    from tautools.records import CallRecord, ModelConfig, Setting
    from tautools.run.folder import SettingFolder


def judging_note(setting: Setting, tasks: Iterable[Task], waiting: int = 0) -> str:
    """Return a sentence on what nobody judged; empty when there is nothing to judge, or all of it was judged.

    Parameters
    ----------
    setting : Setting
        Whether it has a judge.
    tasks : iterable of Task
        The tasks that a score is about.
    waiting : int
        Conversations that are held and owe their verdict.
    """
    every = list(tasks)
    asserting = sum(bool(task.assertions) for task in every)
    judged_there = setting.source.startswith(IMPORTED_PREFIX) and "NL_ASSERTION" in setting.reward_basis
    if setting.judge is None and asserting and not judged_there:
        whose = "The task has" if len(every) == 1 else f"{asserting} of {len(every)} tasks have"
        return f"{whose} natural-language assertions that nobody judged; they are no part of the reward"
    if waiting:
        return f"{waiting} conversations are held and owe only their judge's verdict"
    return ""


def count_awaiting_judge(folder: Path, setting_id: str) -> int:
    """Return how many conversations are held and have no verdict yet."""
    held = read_awaiting_judge(folder, setting_id)
    done = {key[1:] for key in read_ledger(folder) if key[0] == setting_id} if held else set()
    return len(held.keys() - done)


def folder_judging_note(folder: SettingFolder, task_ids: Iterable[str] | None = None) -> str:
    """Return the sentence for the results of a folder; empty when the benchmark is not at hand."""
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
    """Put what a folder's conversations owe to a judge.

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
    found = endpoints(role, workspace=workspace, role_name="judge")
    party = model_config_of(role, found[0].model)
    then = folder.setting.judge
    if then is not None and then.model == party.model:
        party = then  # its sampling is that of the run
    simulated = folder.setting.simulated or any(endpoint.simulated for endpoint in found)
    setting = _with_judge(folder.setting, domain, party, simulated=simulated)
    path = find_folder(workspace / "results", setting)
    done = {key[1:] for key in read_ledger(path) if key[0] == setting.id}
    held = _conversations_to_judge(folder, path, setting)
    pending = [each for pair, each in held.items() if pair not in done]
    path = claim_folder(workspace / "results", setting, folder.provenance)
    with contextlib.closing(ResultsWriter(path)) as writer:
        bench = _JudgePool(domain, writer, party, found, concurrency)
        faults = asyncio.run(bench.run_all(pending))
    rows = [row for key, row in read_ledger(path).items() if key[0] == setting.id]
    if rows:
        write_view(path, rows, num_trials=max(row.trial for row in rows) + 1, order=list(domain.tasks))
    return JudgingResult(
        folder=path,
        judged=bench.judged,
        copied=len(pending) - bench.judged - len(faults),
        already=len(held) - len(pending),
        pending=len(faults),
        cause=str(faults[-1]) if faults else "",
    )


def _with_judge(setting: Setting, domain: Domain, party: ModelConfig, *, simulated: bool) -> Setting:
    if setting.judge == party:
        return setting
    if setting.judge is not None:
        raise ParamsError(
            f"These results have a judge, {setting.judge.model}; another one would mix two judges under one score.",
            next_step=f"Name a server of {setting.judge.model}, or judge the results of a run without a judge.",
        )
    basis = setting.reward_basis.removesuffix(f"+{BASIS}")
    return setting.model_copy(
        update={
            "judge": party,
            "reward_basis": f"{basis}+{BASIS}",
            "prompts": setting.prompts | judge_texts(domain),
            "simulated": simulated,
        }
    )


def _conversations_to_judge(
    folder: SettingFolder, path: Path, setting: Setting
) -> dict[tuple[str, int], AwaitingJudge]:
    """Return what there is to judge, under its new setting: finished conversations, and those that wait."""
    held = read_awaiting_judge(path, setting.id)
    if folder.setting.judge is not None:
        return held
    for key, row in read_ledger(folder.path).items():
        if key[0] == folder.id and row.outcome.scored and key[1:] not in held:
            conversation = read_conversation(folder.path, row).model_copy(
                update={"setting_id": setting.id, "simulated": setting.simulated}
            )
            held[key[1:]] = AwaitingJudge(
                conversation=conversation, counts={name: getattr(row, name) for name in _COUNT_FIELDS}
            )
    return held


class _JudgePool:
    """One judge at work, some conversations at a time."""

    def __init__(
        self, domain: Domain, writer: ResultsWriter, party: ModelConfig, found: Sequence[Endpoint], concurrency: int
    ) -> None:
        self.judged = 0
        self._domain = domain
        self._writer = writer
        self._party = party
        self._found = found
        self._free = asyncio.Semaphore(concurrency)
        self._counts = CallCounts()

    async def run_all(self, pending: Sequence[AwaitingJudge]) -> list[ModelCallError]:
        """Judge and write each; return the faults of those that stay pending."""
        async with ModelClient(
            lambda _part: self._found, {"judge": self._party}, on_call=self._on_call, retry=Retry()
        ) as client:
            told = await asyncio.gather(*(self._judge(each, client) for each in pending))
        return [fault for fault in told if fault is not None]

    def _on_call(self, record: CallRecord) -> None:
        self._counts.add(record)
        self._writer.call(record)

    async def _judge(self, held: AwaitingJudge, client: ModelClient) -> ModelCallError | None:
        conversation = held.conversation
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
            counts = dict(Counter(held.counts) + Counter(asked)) | {"tool_calls": tool_calls(conversation)}
            self._writer.commit(conversation, counts)
        return None
