"""Settings that differ in the persona alone, and their conversations in pairs of one task and trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from tautools.params import CONTROL
from tautools.run.benchmark import domain_of
from tautools.run.folder import results_of
from tautools.run.ledger import read_conversation, read_ledger
from tautools.run.personas.revealed import coverage
from tautools.run.personas.wording import customer_said, wording
from tautools.stats import PairedEffect, paired_effect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.records import CommitRow, Conversation, Setting
    from tautools.run.folder import SettingFolder

__all__ = ["Group", "Played", "Talk", "control_setting", "effect", "groups_of"]

Pair = tuple[str, int]
"""Task id and trial."""


@dataclass(frozen=True)
class Talk:
    """One finished conversation."""

    row: CommitRow
    conversation: Conversation = field(repr=False)

    @cached_property
    def said(self) -> list[str]:
        """The customer's messages."""
        return customer_said(self.conversation)

    @cached_property
    def wording(self) -> dict[str, float]:
        """The figures of its wording."""
        return wording(self.said)


@dataclass(frozen=True)
class Played:
    """One setting with its conversations."""

    folder: SettingFolder

    @property
    def label(self) -> str:
        """The persona's, `control` for none."""
        return self.folder.setting.persona or CONTROL

    @property
    def persona(self) -> str:
        """The persona's name, without its intensity."""
        setting = self.folder.setting
        return self.label.removesuffix(f"-{setting.intensity}") if setting.intensity else self.label

    @cached_property
    def talks(self) -> Mapping[Pair, Talk]:
        """Every finished conversation by task and trial."""
        rows = [row for row in read_ledger(self.folder.path).values() if row.setting_id == self.folder.id]
        return {(row.task_id, row.trial): Talk(row, read_conversation(self.folder.path, row)) for row in rows}

    @cached_property
    def coverage(self) -> Mapping[Pair, float]:
        """Share of the scenario's facts that the customer told, where a task has any."""
        tasks = domain_of(self.folder).tasks
        shares = {pair: coverage(tasks[pair[0]], talk.said) for pair, talk in self.talks.items() if pair[0] in tasks}
        return {pair: share for pair, share in shares.items() if share is not None}


@dataclass(frozen=True)
class Group:
    """Settings that differ in the persona alone."""

    control: Played | None
    variants: tuple[Played, ...]

    @property
    def played(self) -> tuple[Played, ...]:
        """All of them, control first."""
        return (self.control, *self.variants) if self.control else self.variants


def control_setting(setting: Setting) -> Setting:
    """Return the same setting without a persona."""
    prompts = {name: digest for name, digest in setting.prompts.items() if name != "persona"}
    return setting.model_copy(update={"persona": None, "intensity": None, "prompts": prompts})


def groups_of(workspace: Path, folders: Sequence[SettingFolder]) -> list[Group]:
    """Return a group for each control of the given settings with a persona; its variants are those given.

    Parameters
    ----------
    workspace : Path
        Where the controls' results are looked for.
    folders : sequence of SettingFolder
        Those without a persona are left out.
    """
    plain = {each.id: each for each in results_of(workspace) if each.setting.persona is None}
    variants: dict[str, list[Played]] = {}
    for folder in folders:
        if folder.setting.persona is not None:
            variants.setdefault(control_setting(folder.setting).id, []).append(Played(folder))
    return [
        Group(Played(plain[key]) if key in plain else None, tuple(sorted(each, key=lambda one: one.label)))
        for key, each in variants.items()
    ]


def effect(values: Mapping[Pair, float], control: Mapping[Pair, float], *, level: float = 0.95) -> PairedEffect | None:
    """Return how values differ from control's, paired by task and trial; None without a pair."""
    by_task: dict[str, list[float]] = {}
    for pair in sorted(values.keys() & control.keys()):
        by_task.setdefault(pair[0], []).append(values[pair] - control[pair])
    if not by_task:
        return None
    return paired_effect([fmean(each) for each in by_task.values()], level=level)
