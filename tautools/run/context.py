"""Predicts which tasks will exceed the context length that their model is served with.

The estimate rests on `tautools.bench.prompt_size`. Where the workspace has conversations of the env with the model,
they say how many characters a token has and how far conversations outgrow their reference; else both are assumed, and
the forecast says so. An overflow is an outcome all the same, whatever was forecast.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tautools.bench.prompt_size import prompt_chars, reference_prompt_chars, sent_tools
from tautools.errors import TautoolsError
from tautools.params import load_server
from tautools.params.models import RoleParams
from tautools.records import Role, ServerRecord
from tautools.run.folder import results_of
from tautools.run.ledger import read_calls
from tautools.run.plan import Cell
from tautools.servers.addresses import servers_for_role
from tautools.servers.registry import Registry

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
    """How many tasks are likely to exceed one model's context length."""

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

    The user's prompt has no tools and no policy and is left out. Nothing is forecast where the benchmark's tools
    cannot be run here.
    """
    records = Registry(cell.workspace).list()
    parts = {part: role for part, role in cell.run.roles.items() if part == "agent" or part.startswith("expert:")}
    lengths = {part: served_length(role, records, cell.workspace) for part, role in parts.items()}
    known = {part: length for part, length in lengths.items() if length is not None}
    try:
        chars = reference_prompt_chars(cell.domain, cell.approach, cell.tasks) if known else {}
    except TautoolsError:
        return []
    return [_forecast(cell, part, length, chars) for part, length in known.items()]


def served_length(role: RoleParams, records: Sequence[ServerRecord], workspace: Path) -> int | None:
    """Return the context that a role's server has or will have, by registry or server file; None when unknown."""
    if role.provider != "openai":
        return None
    certificates = [each.certificate for each in servers_for_role(role, records) if each.certificate]
    verified = [each.max_model_len for each in certificates if each.max_model_len]
    if verified:
        return min(verified)
    if role.server is None or role.base_url is not None:
        return None
    try:
        params = load_server(role.server, workspace=workspace)
    except TautoolsError:
        return None
    return params.simulate.max_model_len if params.simulated else params.vllm.max_model_len


def _forecast(cell: Cell, part: str, length: int, chars: Mapping[str, int]) -> ContextForecast:
    config = cell.models.configs[part]
    calibration = _calibrate(cell, config.model)
    answer = config.sampling.max_tokens or ANSWER_TOKENS
    scale = calibration.growth / calibration.chars_per_token
    tokens = {task: round(count * scale) + answer for task, count in chars.items()}
    return ContextForecast(cell.run.env, cell.run.strategy.value, part, config.model, length, tokens, calibration)


def _calibrate(cell: Cell, model: str) -> Calibration:
    """Compare what recorded conversations of this env and model came to with what would have been forecast."""
    recorded = list(_recorded(cell, model))
    if len(recorded) < _ENOUGH:
        return Calibration()
    per_token = sum(chars for chars, _, _ in recorded) / sum(tokens for _, tokens, _ in recorded)
    ratios = sorted(tokens * per_token / expected for _, tokens, expected in recorded)
    return Calibration(per_token, statistics.quantiles(ratios, n=10)[-1], len(recorded))


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
        known = cell.domain.tasks
        rows = [row for row in folder.rows() if (row.task_id, row.trial) in longest and row.task_id in known]
        expected = reference_prompt_chars(cell.domain, cell.approach, [known[row.task_id] for row in rows])
        for row in rows:
            messages = folder.conversation(row).messages
            last = max((at for at, each in enumerate(messages) if each["role"] == "assistant"), default=0)
            chars = prompt_chars(messages[:last], sent_tools(cell.domain, cell.approach))
            yield chars, longest[row.task_id, row.trial], expected[row.task_id]
