"""A judge for finished conversations: nothing is asked again but the judge, and what nobody judged is named.

Results of a setting without a judge become results of the same setting with one, in a folder of their own: the
conversations are copied, with verdicts where their tasks assert something. Nothing that was written is changed, and
what is judged already is not judged again. Conversations that a run left without a verdict are judged in place.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tautools.bench import ask_judge, judge_texts, needs_judge, with_verdicts
from tautools.bench.judge import BASIS
from tautools.bench.types import Domain
from tautools.errors import BenchError, ModelCallError, ParamsError
from tautools.llm import ModelClient, Retry
from tautools.params.models import RoleParams
from tautools.records import CallRecord, ModelConfig, Setting
from tautools.run.exporters import write_view
from tautools.run.folder import SettingFolder, find_folder, make_folder
from tautools.run.ledger import (
    FLAG_COUNT,
    AwaitingJudge,
    Ledger,
    ResultsWriter,
    count_awaiting_judge,
    read_awaiting_judge,
)
from tautools.run.plan import judging_note, model_config_of
from tautools.run.worker import CallCounts
from tautools.servers.addresses import endpoints


def folder_judging_note(folder: SettingFolder, task_ids: Iterable[str] | None = None) -> str:
    """Return the note of `judging_note` for the results of a folder; empty when the benchmark is not installed.

    Parameters
    ----------
    folder : SettingFolder
        The results.
    task_ids : iterable of str, optional
        The tasks that a score is about; all of the env when not given.
    """
    try:
        known = folder.domain.tasks
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
    domain = folder.domain
    judges = endpoints(role, workspace=workspace, role_name="judge")
    judge = model_config_of(role, judges[0].model)
    simulated = folder.setting.simulated or any(endpoint.simulated for endpoint in judges)
    setting = _with_judge(folder.setting, domain, judge, simulated=simulated)
    target = find_folder(workspace / "results", setting)
    ledger = Ledger(target.path)
    done = {key[1:] for key in ledger.refresh().rows(setting.id)}
    to_judge = _conversations_to_judge(folder, target.path, setting)
    pending = [each for pair, each in to_judge.items() if pair not in done]
    target = make_folder(target, folder.provenance)
    counts = CallCounts()
    with contextlib.closing(ResultsWriter(target.path)) as writer:

        def on_call(record: CallRecord) -> None:
            counts.add(record)
            writer.call(record)

        client = ModelClient(lambda _part: judges, {"judge": setting.judge or judge}, on_call=on_call, retry=Retry())
        ends = asyncio.run(_judge_all(folder, pending, client, writer, counts, concurrency))
    faults = [each for each in ends if isinstance(each, ModelCallError)]
    rows = ledger.refresh().rows(setting.id).values()
    if rows:
        write_view(target.path, rows, order=list(domain.tasks))
    return JudgingResult(
        folder=target.path,
        judged=ends.count(True),
        copied=ends.count(False),
        already=len(to_judge) - len(pending),
        pending=len(faults),
        cause=str(faults[-1]) if faults else "",
    )


def _with_judge(setting: Setting, domain: Domain, judge: ModelConfig, *, simulated: bool) -> Setting:
    if setting.judge is not None and setting.judge.model == judge.model:
        return setting  # its sampling is that of the run
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
    for row in folder.rows():
        if row.outcome.scored and (row.task_id, row.trial) not in to_judge:
            changes = {"setting_id": setting.id, "simulated": setting.simulated}
            conversation = folder.conversation(row).model_copy(update=changes)
            counts = {name: getattr(row, name) for name in _COUNT_FIELDS}
            counts |= {f"{FLAG_COUNT}{name}": number for name, number in row.flags.items()}
            to_judge[row.task_id, row.trial] = AwaitingJudge(conversation=conversation, counts=counts)
    return to_judge


async def _judge_all(
    folder: SettingFolder,
    pending: Sequence[AwaitingJudge],
    client: ModelClient,
    writer: ResultsWriter,
    counts: CallCounts,
    concurrency: int,
) -> list[ModelCallError | bool]:
    """Judge and write each; return for each the fault, or whether the judge was asked."""
    free = asyncio.Semaphore(concurrency)

    async def judge(ended: AwaitingJudge) -> ModelCallError | bool:
        conversation = ended.conversation
        task = folder.task(conversation.task_id)
        asks = needs_judge(task, conversation.outcome)
        async with free:
            if asks:
                try:
                    verdicts = await ask_judge(
                        folder.domain, task, conversation, client, seed_rule=folder.setting.seed_rule
                    )
                except ModelCallError as error:
                    return error
                conversation = with_verdicts(conversation, verdicts)
            asked = counts.pop((conversation.task_id, conversation.trial))
            writer.commit(conversation, dict(Counter(ended.counts) + Counter(asked)))
        return asks

    async with client:
        return await asyncio.gather(*map(judge, pending))
