"""How the simulated customer behaves: a persona's file, and the text that it adds to the customer's prompt."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from tautools.errors import ParamsError, unknown_name
from tautools.params.models import NAME, Params

CONTROL = "control"
"""The persona that adds nothing."""

_TEXT = Annotated[str, Field(max_length=4000)]
_LEVEL = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,29}$")]

HEADING = "\n\n# Your mood in this conversation: "
"""What a persona's text begins with."""

RULES = """\
This is about your manner alone. Your request, your facts and what you agree to are those of the scenario above: change
none of them, add none, and ask for nothing else. Tell the agent as much as the scenario lets you tell, no less and no
more: whatever your mood, you answer every question that the scenario lets you answer, correctly and completely. Do
what you were told above about the form of your answers and about when and how to end the conversation; your mood
neither ends it earlier nor keeps it going longer. Do not mention this description."""
"""What stands below every persona's own words, a user's as well."""


class PersonaParams(Params):
    """One persona: its words at every intensity, and those of each intensity. Without any words it adds nothing."""

    name: str = Field(pattern=NAME)
    description: str = ""
    mood: str = Field("", max_length=60)
    """What the customer's prompt calls the mood; the name when not given."""
    text: _TEXT = ""
    """How the customer speaks and behaves, at every intensity."""
    levels: dict[_LEVEL, _TEXT] = Field(default_factory=dict)
    """Intensity to what it adds, from the weakest to the strongest."""
    default: str | None = None
    """The intensity when none is asked for."""

    @model_validator(mode="after")
    def _levels_agree(self) -> "PersonaParams":
        if self.default is not None and self.default not in self.levels:
            raise ValueError(f"`default` is {self.default!r}, and `levels` has no such intensity")
        if self.levels and self.default is None:
            raise ValueError("`levels` needs a `default`: the intensity when none is asked for")
        if any(not words.strip() for words in self.levels.values()):
            raise ValueError("an intensity in `levels` has no words")
        return self

    @model_validator(mode="after")
    def _leaves_the_protocol_alone(self) -> "PersonaParams":
        words = " ".join((self.mood, self.text, *self.levels.values()))
        found = [mark for mark in ("###", "</", "```") if mark in words]
        if found:
            raise ValueError(f"{found[0]!r} belongs to the benchmark's own protocol and cannot be in a persona")
        if self.name == CONTROL and words.strip():
            raise ValueError("`control` adds nothing to the customer's prompt; give a persona with words another name")
        return self


@dataclass(frozen=True, slots=True)
class Persona:
    """A persona at one intensity, as it is played."""

    name: str
    intensity: str
    """Empty for a persona that has only one."""
    label: str
    """Its name in settings and folders: the name, and behind it any intensity but the usual one."""
    words: str
    """The file's own words at this intensity; empty for one that adds nothing."""
    mood: str

    @property
    def block(self) -> str:
        """The text as it is appended to the customer's system prompt; empty when there is nothing to add."""
        if not self.words:
            return ""
        degree = f" ({self.intensity})" if self.intensity else ""
        return f"{HEADING}{self.mood}{degree}\n\n{self.words}\n\n{RULES}\n"

    @property
    def sha256(self) -> str:
        """Of the block, as the setting keeps it under `prompts.persona`."""
        return hashlib.sha256(self.block.encode()).hexdigest()


def choose_level(params: PersonaParams, level: str | None = None) -> Persona:
    """Return a persona at an intensity, its usual one when none is given.

    Raises
    ------
    ParamsError
        When it has no such intensity.
    """
    if level is not None and level not in params.levels:
        show = f"`tautools persona show {params.name}` shows each."
        of = f"of the persona {params.name}"
        raise unknown_name(ParamsError, "intensity", level, params.levels, of=of, next_step=show)
    intensity = level or params.default or ""
    parts = (params.text.strip(), params.levels.get(intensity, "").strip())
    return Persona(
        name=params.name,
        intensity=intensity,
        label=params.name if intensity == (params.default or "") else f"{params.name}-{intensity}",
        words="\n\n".join(part for part in parts if part),
        mood=params.mood or params.name,
    )
