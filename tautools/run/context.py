"""Predicts which tasks will exceed the context length that their model is served with.

The estimate rests on `tautools.bench.growth`. Where the workspace has conversations of the env with the same model,
they say how many characters a token has and how far conversations outgrow their reference; else both are assumed, and
the forecast says so. An overflow is an outcome all the same, whatever was forecast.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.bench.prompt_size import prompt_chars, reference_prompt_chars, sent_tools
from tautools.errors import TautoolsError
from tautools.params import load_server
from tautools.records import Role
from tautools.run.folder import results_of
from tautools.run.ledger import read_calls, read_conversation, read_ledger
from tautools.servers import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tautools.params.models import RoleParams
    from tautools.records import ModelConfig
    from tautools.run.plan import Cell


CHARS_PER_TOKEN = 3.6
"""Assumed where no call of the model was recorded: English and JSON mixed."""
ANSWER_TOKENS = 512
"""Room that an answer is given when the role sets no `max_tokens`."""
_ENOUGH = 5
"""Recorded conversations from which on they are believed."""
_STEP = 1024


@dataclass(frozen=True, slots=True)
class Calibration:
    """What recorded conversations say about the estimate."""

    chars_per_token: float = CHARS_PER_TOKEN
    growth: float = 1.0
    """By how much nine of ten conversations stay below their estimate from the reference."""
    conversations: int = 0

    def __str__(self) -> str:
        if not self.conversations:
            return f"an estimate from the reference actions; {self.chars_per_token:g} characters a token are assumed"
        return (
            f"an estimate from the reference actions and {self.conversations} recorded conversations: "
            f"{self.chars_per_token:.2f} characters a token, up to {self.growth:.2f} times the reference"
        )


@dataclass(frozen=True, slots=True)
class ContextForecast:
    """How many tasks are likely to outgrow one model's context."""

    env: str
    strategy: str
    part: str
    """Whose model: `agent` or `expert:<name>`."""
    model: str
    max_model_len: int
    tokens: Mapping[str, int]
    """Task id to the tokens that its longest request is likely to need, the answer included."""
    calibration: Calibration

    @property
    def exceeding(self) -> list[str]:
        """Ids of the tasks that are likely to need more than there is."""
        return [task for task, tokens in self.tokens.items() if tokens > self.max_model_len]

    @property
    def needed(self) -> int:
        """A `max_model_len` that all tasks are likely to fit, in whole kibitokens."""
        return -(-max(self.tokens.values(), default=0) // _STEP) * _STEP

    def __str__(self) -> str:
        if not self.exceeding:
            return f"Context: all {self.env} tasks are likely to fit the {self.max_model_len} tokens of {self.model}"
        return (
            f"Context: {self.model} ({self.part}) is served with {self.max_model_len} tokens, and "
            f"{len(self.exceeding)} of {len(self.tokens)} {self.env} tasks are likely to need more under "
            f"{self.strategy}; set max_model_len to {self.needed} or more ({self.calibration})."
        )


def context_forecasts(cell: Cell) -> list[ContextForecast]:
    """Return a forecast for the agent and each expert of a cell whose served length is known without asking a server.

    The customer's prompt has no tools and no policy and is left out. Nothing is forecast where the benchmark's tools
    cannot be run here.
    """
    lengths = {
        part: (cell.models.configs[part], length)
        for part, role in cell.run.roles.items()
        if part == "agent" or part.startswith("expert:")
        if (length := served_length(role, cell.workspace)) is not None
    }
    if not lengths:
        return []
    try:
        chars = reference_prompt_chars(cell.domain, cell.approach, cell.tasks)
    except TautoolsError:
        return []
    return [_forecast(cell, part, party, length, chars) for part, (party, length) in lengths.items()]


def served_length(role: RoleParams, workspace: Path) -> int | None:
    """Return the context that a role's server has or will have, by registry or server file; None: nobody wrote it."""
    if role.provider != "openai":
        return None
    records = Registry(workspace).list()
    named = [each for each in records if role.server and role.server in {each.name, each.spec.get("name")}]
    known = named or [each for each in records if each.model == (role.model or role.server)]
    proven = [each.certificate.max_model_len for each in known if each.certificate and each.certificate.max_model_len]
    if proven:
        return min(proven)
    if role.server is None or role.base_url is not None:
        return None
    try:
        params = load_server(role.server, workspace=workspace)
    except TautoolsError:
        return None
    return params.simulate.max_model_len if params.simulated else params.vllm.max_model_len


def _forecast(cell: Cell, part: str, party: ModelConfig, length: int, chars: Mapping[str, int]) -> ContextForecast:
    calibration = _calibrate(cell, party.model)
    answer = party.sampling.max_tokens or ANSWER_TOKENS
    scale = calibration.growth / calibration.chars_per_token
    tokens = {task: round(count * scale) + answer for task, count in chars.items()}
    strategy = cell.run.strategy.value
    return ContextForecast(cell.run.env, strategy, part, party.model, length, tokens, calibration)


def _calibrate(cell: Cell, model: str) -> Calibration:
    """Compare what recorded conversations of this env and model came to with what would have been forecast."""
    seen = list(_recorded(cell, model))
    if len(seen) < _ENOUGH:
        return Calibration()
    per_token = sum(chars for chars, _, _ in seen) / sum(tokens for _, tokens, _ in seen)
    ratios = sorted(tokens * per_token / expected for _, tokens, expected in seen)
    growth = statistics.quantiles(ratios, n=10)[-1]
    return Calibration(per_token, growth, len(seen))


def _recorded(cell: Cell, model: str) -> Iterator[tuple[int, int, int]]:
    """Yield characters and tokens of the agent's longest prompt, and the characters forecast for it."""
    for folder in results_of(cell.workspace):
        setting = folder.setting
        here = (cell.domain.ref.bench, cell.run.env, cell.run.strategy, model)
        if (setting.bench, setting.env, setting.strategy, setting.agent.model) != here:
            continue
        longest: dict[tuple[str, int], int] = {}
        for call in read_calls(folder.path):
            if call.role is Role.AGENT and call.model == model and call.prompt_tokens:
                pair = (call.task_id, call.trial)
                longest[pair] = max(longest.get(pair, 0), call.prompt_tokens)
        rows = [row for row in read_ledger(folder.path).values() if (row.task_id, row.trial) in longest]
        known = [row for row in rows if row.task_id in cell.domain.tasks]
        tasks = [cell.domain.tasks[row.task_id] for row in known]
        expected = reference_prompt_chars(cell.domain, cell.approach, tasks)
        for row in known:
            messages = read_conversation(folder.path, row).messages
            last = max((at for at, each in enumerate(messages) if each["role"] == "assistant"), default=0)
            chars = prompt_chars(messages[:last], sent_tools(cell.domain, cell.approach))
            yield chars, longest[row.task_id, row.trial], expected[row.task_id]
