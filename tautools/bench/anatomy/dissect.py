"""The anatomy of one conversation: its database, its actions, its words, against what the task expects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tautools.bench.anatomy.actions import ActionFate, Fate, action_fates, unasked_writes
from tautools.bench.anatomy.fields import FieldDifference, field_differences
from tautools.bench.replay import replay
from tautools.bench.rules import basis_of
from tautools.records import Deed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Domain, Task

__all__ = ["Anatomy", "dissect"]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Why a conversation got its reward."""

    fields: tuple[FieldDifference, ...]
    """Of the database, where it differs from the one that the reference leaves, whether the task scores it or not."""
    actions: tuple[ActionFate, ...]
    """Every reference action and what became of it."""
    unasked: tuple[str, ...]
    """Calls that changed the database and are not in the reference, as `name(arguments)`."""
    unsaid: tuple[str, ...]
    """What the user should have been told and was not."""
    unmet: tuple[str, ...]
    """Assertions about the environment that do not hold."""
    unmade: tuple[str, ...]
    """Reference actions that the task's score asks for and that nobody made."""
    scores_database: bool
    """Whether the task's score rests on the database; in telecom it does not."""
    scorer_reward: float
    """The bench's verdict on the state reached and the words said."""

    @property
    def missed(self) -> tuple[ActionFate, ...]:
        """Reference actions that were not made."""
        return tuple(each for each in self.actions if each.fate is not Fate.MADE)

    @property
    def causes(self) -> tuple[str, ...]:
        """What the score was lost by: of `database`, `information`, `environment`, `actions`; empty when it passes."""
        found = {
            "database": self.fields if self.scores_database else (),
            "information": self.unsaid,
            "environment": self.unmet,
            "actions": self.unmade,
        }
        return tuple(name for name, each in found.items() if each)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        told = asdict(self)
        for row, each in zip(told["fields"], self.fields, strict=True):
            row["wrong"] = each.wrong.value
        for row, fate in zip(told["actions"], self.actions, strict=True):
            row["expected"] = dict(fate.expected)
        return told | {"causes": list(self.causes)}


def dissect(domain: Domain, task: Task, deeds: Sequence[Deed]) -> Anatomy:
    """Return the anatomy of a conversation, from a replay of what it did.

    Parameters
    ----------
    domain, task
        The env and the task of the conversation.
    deeds : sequence of Deed
        What was done, in order: `Conversation.deeds`.
    """
    done = replay(domain, task, deeds)
    start, expected = dict(domain.world(task).changes()), domain.expected(task)
    info = done.reward.info
    return Anatomy(
        fields=() if expected is None else field_differences(domain, start, expected, done.changes),
        actions=action_fates(task.reference, done.steps, _refused_anyway(domain, task)),
        unasked=tuple(
            f"{step.deed.call}({step.deed.arguments})" for step in unasked_writes(task.reference, done.steps)
        ),
        unsaid=tuple(str(each) for each in info.get("missing_info") or ()),
        unmet=tuple(_unmet(info.get("assertions") or ())),
        unmade=tuple(str(each) for each in info.get("missing_actions") or ()),
        scores_database="DB" in basis_of(task),
        scorer_reward=done.reward.value,
    )


def _refused_anyway(domain: Domain, task: Task) -> list[int]:
    """Return the places of the reference's calls that the tools refuse even in its own run."""
    own = [
        Deed(by="user" if each.requestor == "user" else "assistant", call=each.name, arguments=_as_json(each.arguments))
        for each in task.reference
    ]
    return [place for place, step in enumerate(replay(domain, task, own).steps) if step.seen.error]


def _as_json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments))


def _unmet(assertions: Sequence[Any]) -> list[str]:
    """Return the assertions that do not hold, in words."""
    return [
        str(each.get("assertion") or each) for each in assertions if isinstance(each, Mapping) and not each.get("met")
    ]
