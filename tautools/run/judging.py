"""A judge for conversations that are finished: nobody is asked anew but the judge.

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
from tautools.errors import ModelCallError, ParamsError
from tautools.llm import ModelDoor, Retry
from tautools.run.benchmark import domain_of, task_of
from tautools.run.count import CallCounts, tool_calls
from tautools.run.folder import claim_folder, find_folder
from tautools.run.ledger import read_conversation, read_ledger
from tautools.run.roles import party_of
from tautools.run.unjudged import Unjudged, read_unjudged
from tautools.run.view import write_view
from tautools.run.writer import Writer
from tautools.server import endpoints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.bench.types import Domain
    from tautools.llm.types import Endpoint
    from tautools.params.models import RoleParams
    from tautools.records import CallRecord, Party, Setting
    from tautools.run.folder import SettingFolder

__all__ = ["Judged", "judge_folder"]

_COUNTED = ("agent_calls", "user_calls", "expert_calls", "prompt_tokens", "cached_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of judging one folder."""

    folder: Path
    """Where the judged results are."""
    judged: int
    copied: int
    """Conversations whose tasks assert nothing, or that the benchmark did not end."""
    already: int
    owed: int
    cause: str = ""
    """Why some are owed."""


def judge_folder(folder: SettingFolder, role: RoleParams, *, workspace: Path, concurrency: int = 8) -> Judged:
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
    party = party_of(role, found[0].model)
    then = folder.setting.judge
    if then is not None and then.model == party.model:
        party = then  # its sampling is that of the run
    simulated = folder.setting.simulated or any(endpoint.simulated for endpoint in found)
    setting = _with_judge(folder.setting, domain, party, simulated=simulated)
    path = find_folder(workspace / "results", setting)
    done = {key[1:] for key in read_ledger(path) if key[0] == setting.id}
    held = _held(folder, path, setting)
    owed = [each for pair, each in held.items() if pair not in done]
    path = claim_folder(workspace / "results", setting, folder.provenance)
    with contextlib.closing(Writer(path)) as writer:
        bench = _Bench(domain, writer, party, found, concurrency)
        faults = asyncio.run(bench.judge_all(owed))
    rows = [row for key, row in read_ledger(path).items() if key[0] == setting.id]
    if rows:
        write_view(path, rows, num_trials=max(row.trial for row in rows) + 1, order=list(domain.tasks))
    return Judged(
        folder=path,
        judged=bench.judged,
        copied=len(owed) - bench.judged - len(faults),
        already=len(held) - len(owed),
        owed=len(faults),
        cause=str(faults[-1]) if faults else "",
    )


def _with_judge(setting: Setting, domain: Domain, party: Party, *, simulated: bool) -> Setting:
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


def _held(folder: SettingFolder, path: Path, setting: Setting) -> dict[tuple[str, int], Unjudged]:
    """Return what there is to judge, under its new setting: finished conversations, and those that wait."""
    held = read_unjudged(path, setting.id)
    if folder.setting.judge is not None:
        return held
    for key, row in read_ledger(folder.path).items():
        if key[0] == folder.id and row.outcome.scored and key[1:] not in held:
            conversation = read_conversation(folder.path, row).model_copy(
                update={"setting_id": setting.id, "simulated": setting.simulated}
            )
            held[key[1:]] = Unjudged(conversation=conversation, counts={name: getattr(row, name) for name in _COUNTED})
    return held


class _Bench:
    """One judge at work, some conversations at a time."""

    def __init__(
        self, domain: Domain, writer: Writer, party: Party, found: Sequence[Endpoint], concurrency: int
    ) -> None:
        self.judged = 0
        self._domain = domain
        self._writer = writer
        self._party = party
        self._found = found
        self._free = asyncio.Semaphore(concurrency)
        self._counts = CallCounts()

    async def judge_all(self, owed: Sequence[Unjudged]) -> list[ModelCallError]:
        """Judge and write each; return the faults of those that stay owed."""
        async with ModelDoor(
            lambda _part: self._found, {"judge": self._party}, on_call=self._on_call, retry=Retry()
        ) as door:
            told = await asyncio.gather(*(self._judge(each, door) for each in owed))
        return [fault for fault in told if fault is not None]

    def _on_call(self, record: CallRecord) -> None:
        self._counts.add(record)
        self._writer.call(record)

    async def _judge(self, held: Unjudged, door: ModelDoor) -> ModelCallError | None:
        conversation = held.conversation
        task = task_of(self._domain, conversation.task_id)
        async with self._free:
            if needs_judge(task, conversation.outcome):
                try:
                    verdicts = await ask_judge(self._domain, task, conversation, door)
                except ModelCallError as error:
                    return error
                conversation = with_verdicts(conversation, verdicts)
                self.judged += 1
            asked = self._counts.pop((conversation.task_id, conversation.trial))
            counts = dict(Counter(held.counts) + Counter(asked)) | {"tool_calls": tool_calls(conversation)}
            self._writer.commit(conversation, counts)
        return None
