"""Which adopted setting a run goes on with, when its source is `adopted:…`.

What was adopted forms a setting of its own, made of what the files tell. A run can go on with it, if a person says so
by naming that source: its conversations are held here and now, and kept beside the adopted ones, each marked for what
it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.sources import ADOPTED
from tautools.errors import ParamsError
from tautools.run.folder import results_of

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.params.models import RunParams
    from tautools.records import Party, Setting
    from tautools.run.roles import Cast

__all__ = ["adopted_setting", "goes_on"]


def goes_on(run: RunParams) -> bool:
    """Whether a run goes on with adopted results."""
    return bool(run.source and run.source.startswith(ADOPTED))


def adopted_setting(run: RunParams, cast: Cast, *, split: str, workspace: Path) -> Setting:
    """Return the one adopted setting that a run's params fit.

    Raises
    ------
    ParamsError
        When none fits, or several, or when the models are simulated and the adopted ones were not.
    """
    every = [each.setting for each in results_of(workspace) if each.setting.source == run.source]
    fitting = [each for each in every if _fits(each, run, cast, split)]
    if len(fitting) == 1:
        _same_reality(fitting[0], cast)
        return fitting[0]
    raise ParamsError(
        f"{len(fitting) or 'No'} adopted settings of source {run.source} fit this run.",
        evidence="\n".join(_told(each) for each in fitting or every) or "Nothing of that source was adopted here.",
        next_step="Name env, strategy, split, models and how they are asked (--temperature, --user-temperature, --set "
        "agent.top_p=…) as they stand there.",
    )


def _fits(setting: Setting, run: RunParams, cast: Cast, split: str) -> bool:
    user = cast.parties.get("user")
    return (
        (setting.bench, setting.env, setting.split) == (run.bench, run.env, split)
        and (setting.strategy, setting.user_strategy) == (run.strategy, run.user_strategy)
        and setting.persona == run.persona
        and _same(setting.agent, cast.parties["agent"])
        and (user is None or _same(setting.user, user))
    )


def _same(there: Party, asked: Party) -> bool:
    """Whether a model is asked as it was; where it is served does not matter."""
    return (there.model, there.sampling) == (asked.model, asked.sampling)


def _same_reality(setting: Setting, cast: Cast) -> None:
    if setting.simulated in cast.simulated:
        return
    raise ParamsError(
        "SIMULATED models cannot go on with results of real ones."
        if not setting.simulated
        else "Real models cannot go on with SIMULATED results.",
        evidence=_told(setting),
        next_step="Name servers of the models that the adopted results were made with.",
    )


def _asked(party: Party) -> dict[str, object]:
    return party.sampling.model_dump(exclude_defaults=True)


def _told(setting: Setting) -> str:
    agent, user = (
        " ".join([each.model, *(f"{name}={value}" for name, value in _asked(each).items())])
        for each in (setting.agent, setting.user)
    )
    return f"{setting.id}: {setting.env} {setting.split} {setting.strategy.value}, agent {agent}, user {user}"
