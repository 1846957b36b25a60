"""What people write: sites, servers, sweeps, runs. Strict: an unknown key is an error, values are never guessed."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tautools.records import (
    BenchRef,
    Limits,
    Sampling,
    SeedRule,
    Strategy,
    StrictValue,
    Thinking,
    ThinkingSwitch,
    UserStrategy,
)
from tautools.redaction import names_a_secret

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""Names become parts of paths, so they hold nothing that could lead elsewhere."""

PERSONA = NAME.removesuffix("$") + r"(:[a-z0-9][a-z0-9-]{0,29})?$"
"""A persona's name, and behind a colon its intensity."""

_OWN_HEADERS = ("accept", "authorization", "connection", "content-", "cookie", "host", "transfer-encoding")
"""How the names of headers begin that requests have anyway, or that would break them."""


_RANGE = re.compile(r"(\d+)-(\d+)")


def split_ids(texts: Iterable[str]) -> list[str]:
    """Return the ids of a list as it is written everywhere, without repeats: `0-2,7` is 0, 1, 2 and 7.

    Raises
    ------
    ValueError
        When a range runs backwards, or nothing is named.
    """
    found: list[str] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            found += [part] if part else []
            continue
        first, last = int(match[1]), int(match[2])
        if first > last:
            raise ValueError(f"the range {part} runs backwards")
        found += map(str, range(first, last + 1))
    if not found:
        raise ValueError("the list is empty")
    return list(dict.fromkeys(found))


class Params(StrictValue):
    """A value that a person writes."""


class SiteParams(Params):
    """Where work runs: one machine, or a cluster's partition with what a job must ask for."""

    name: str = Field(pattern=NAME)
    description: str = ""
    scheduler: Literal["none", "slurm"] = "none"
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    cores: int | None = Field(None, ge=1)
    memory_gib: int | None = Field(None, ge=1)
    gres: str | None = None
    """Slurm's generic resource, such as `gpu:hl225:1`."""
    time_limit: str | None = None
    """Slurm's form: `D-HH`, `D-HH:MM:SS` or `HH:MM:SS`."""
    constraint: str | None = None
    """Features that a node must have, as `sbatch --constraint` takes them."""
    exclude: list[str] = Field(default_factory=list)
    """Nodes that no job runs on, each as `sbatch --exclude` takes it."""
    device: Literal["cuda", "gaudi", "cpu", "none"] = "none"
    modules: list[str] = Field(default_factory=list)
    """`module load` arguments, one per line of the job script."""
    activate: list[str] = Field(default_factory=list)
    """Shell lines that activate the environment of the servers."""
    serve_command: list[str] = Field(default_factory=lambda: ["vllm", "serve"])
    """How the installed vLLM is started, as a list of words."""
    pins: list[str] = Field(default_factory=list)
    """Requirements the site's environment must satisfy; compared by `doctor`, never changed."""
    env: dict[str, str] = Field(default_factory=dict)
    host: str = "127.0.0.1"
    """Address that servers bind to."""
    node_disk: str = "/tmp"  # noqa: S108 - a place every node has
    """Folder on a disk of the node itself, for caches that must not lie on a shared one."""
    recipe_store: str | None = None
    """Shared folder that compiled graphs of Gaudi servers are brought from before a start, and new ones taken to."""
    reach: str | None = None
    """How other nodes call a server that binds to every address: an interface such as `ib0`, a network such as
    `10.0.0.0/8`, or an address; the host name when not given."""
    cards_per_node: int | None = Field(None, ge=0)
    """For plans made away from the node; on the node itself its cards are read."""
    card_memory_gib: float | None = Field(None, gt=0)
    """Memory of one card [GiB], likewise."""

    @property
    def uses_slurm(self) -> bool:
        """Whether work of this site runs in jobs of Slurm."""
        return self.scheduler == "slurm"


class SimulateParams(Params):
    """How a simulated model behaves. Everything it produces is marked SIMULATED."""

    skill: float = Field(1.0, ge=0, le=1)
    """Probability that a conversation of a task is solved; 1 follows the reference, 0 does nothing."""
    ttft_ms: float = Field(80.0, ge=0)
    """Median time to first token [ms]."""
    itl_ms: float = Field(8.0, ge=0)
    """Median gap between tokens [ms]."""
    prefill_ms_per_1k_tokens: float = Field(20.0, ge=0)
    """Added to the time to first token per 1000 uncached prompt tokens [ms]."""
    jitter: float = Field(0.25, ge=0, le=2)
    """Spread of the times: standard deviation of their logarithm."""
    speed: float = Field(1.0, ge=0)
    """All times are divided by it; 0 answers at once."""
    seed: int = 0
    """Another seed solves other conversations."""
    max_model_len: int = Field(131072, ge=1024)
    """Longest prompt and answer together [tokens]."""


SIMULATE_OPTIONS = {name: f"--{name.removesuffix('_tokens').replace('_', '-')}" for name in SimulateParams.model_fields}
"""The options of `tautools simulate` by the params that they set."""


class VllmParams(Params):
    """vLLM's own options, by vLLM's own names; anything else goes into `args`."""

    max_model_len: int | None = Field(None, ge=256)
    tensor_parallel_size: int = Field(1, ge=1)
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    max_num_seqs: int | None = Field(None, ge=1)
    dtype: str | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Becomes `--default-chat-template-kwargs`, such as `{enable_thinking: false}`."""
    enforce_eager: bool = False
    args: dict[str, Any] = Field(default_factory=dict)
    """Further flags: `name: value`; `true` gives the bare flag, `false` the `--no-` form."""


class ServerParams(Params):
    """One server to start: what it serves and how."""

    name: str = Field(pattern=NAME)
    description: str = ""
    engine: Literal["vllm", "simulate"] = "vllm"
    model: str
    """Hub id or folder of the weights."""
    served_model_name: str | None = None
    """What requests call it; the model itself when not given."""
    port: int | None = Field(None, ge=1, le=65535)
    """Asked-for port; a free one when not given."""
    cards: list[int] = Field(default_factory=list)
    """Cards by the index that `hl-smi` or `nvidia-smi` prints, for all replicas together; free ones when not given."""
    replicas: int = Field(1, ge=1, le=256)
    """So many servers of this model, named NAME-0, NAME-1, …; each has cards, port, key and cache of its own."""
    start_port: int | None = Field(None, ge=1, le=65535)
    """Port of the first replica; the others get the following ones."""
    end_port: int | None = Field(None, ge=1, le=65535)
    """With it the replicas get free ports from `start_port` to here, whichever they are."""
    stagger: Annotated[float, Field(ge=0)] | Literal["loaded"] | None = None
    """The next server starts so many seconds after the former, or when that one has `loaded`; by default at once."""
    env: dict[str, str] = Field(default_factory=dict)
    serve_command: list[str] | None = None
    """How to start the engine, in place of the site's."""
    startup_timeout_s: float = Field(900.0, gt=0)
    """Seconds without any progress in the log after which a start is given up."""
    release_timeout_s: float = Field(240.0, ge=0)
    """Most seconds that a stop waits for the memory of its cards to come back; on Gaudi it takes up to minutes."""
    vllm: VllmParams = VllmParams()
    simulate: SimulateParams = SimulateParams()

    @model_validator(mode="after")
    def _ports_agree(self) -> "ServerParams":
        if self.port is not None and (self.start_port is not None or self.replicas > 1):
            raise ValueError("`port` is for one server; give several `start_port`")
        if self.end_port is not None and (self.start_port is None or self.end_port < self.start_port):
            raise ValueError("`end_port` needs a `start_port` that is not above it")
        return self

    @property
    def simulated(self) -> bool:
        """Whether no real model is served."""
        return self.engine == "simulate"

    @property
    def serves(self) -> str:
        """The name that requests carry."""
        return self.served_model_name or self.model


class RoleParams(Params):
    """The model of one role: which server, and how it is asked. A bare string names a server file or a model."""

    server: str | None = None
    """Name of a running server, or of a file under `params/servers/`."""
    model: str | None = None
    """Name of the model: as a server calls it, or a hosted one's."""
    base_url: str | None = None
    """Address of a server that runs already, ending in `/v1`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    provider: str = "openai"
    """`openai` is any OpenAI-compatible server; other names are litellm's (`gemini`, `anthropic`, …)."""
    affinity_header: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Header by which a router keeps a conversation on one server, such as `x-session-id`; none is sent by default."""
    temperature: float | None = Field(None, ge=0, le=2)
    """Sampling temperature; the server's own when not given."""
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    max_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    """Longest answer [tokens]; `auto` is 4096, 32768 for a model that may think, and never more than its context
    leaves; null leaves it to the server."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    thinking: Thinking = Thinking.DEFAULT
    thinking_switch: ThinkingSwitch | None = None
    """How the model is switched between thinking and not; its family's way when not given."""
    description: str = ""
    """What an orchestrating agent reads about this model, when it is an expert."""

    @field_validator("extra_body")
    @classmethod
    def _holds_no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        named = [name for name, each in value.items() if isinstance(each, str) and names_a_secret(name)]
        if named:
            raise ValueError(f"{named[0]} would be in every record; name the key's variable with `api_key_env`")
        return value

    @field_validator("affinity_header")
    @classmethod
    def _is_a_free_header(cls, value: str | None) -> str | None:
        if value is not None and value.lower().startswith(_OWN_HEADERS):
            raise ValueError(f"a request's own header {value} cannot say which conversation it is of")
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"server": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_a_model(self) -> "RoleParams":
        if not (self.server or self.model):
            raise ValueError("a role needs `server` or `model`")
        if self.base_url is not None and not self.model:
            raise ValueError("`base_url` needs `model`: the name that the server serves")
        return self

    @property
    def sampling(self) -> Sampling:
        """The sampling part, as it enters the setting."""
        chosen = {name: getattr(self, name) for name in Sampling.model_fields}
        return Sampling(**chosen | {"max_tokens": None if self.max_tokens == "auto" else self.max_tokens})


class TaskParams(Params):
    """Which tasks of an env: `ids`, or the half-open range, then the first `limit` of them."""

    split: str | None = None
    """The bench's own default when not given (`base` for tau2, `test` for v1)."""
    ids: list[str] | None = None
    """Ids of tasks, such as 0-3,7."""
    start_index: int = Field(0, ge=0)
    """First task, counted from 0."""
    end_index: int = Field(-1, ge=-1)
    """Task to stop before; -1: to the last task."""
    limit: int | None = Field(None, ge=1)
    """At most so many tasks."""

    @field_validator("ids", mode="before")
    @classmethod
    def _ids_are_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return split_ids([value])
        return [str(item) for item in value] if isinstance(value, list) else value


class LimitParams(Limits):
    """The limits of a run's conversations."""

    time_s: float | None = Field(7200.0, gt=0)
    """Seconds that one conversation may take; what faults of the infrastructure cost is not counted."""


class SharedRunParams(Params):
    """What a run has, and what all cells of a sweep share."""

    bench: Literal["tau2", "tau-bench"] = "tau2"
    """The benchmark; tau-bench is the first version."""
    source: str | None = None
    """Where the benchmark is loaded from; its usual place when not given."""
    path: str | None = None
    """Checkout of the benchmark, for sources that need one."""
    python: str | None = None
    """Interpreter of the checkout's own environment, for sources that run in one."""
    user: RoleParams
    user_strategy: UserStrategy = UserStrategy.LLM
    """How the customer is played."""
    judge: RoleParams | None = None
    """Model that decides natural-language assertions; without one they are left out, and reports say so."""
    experts: dict[Annotated[str, Field(pattern=NAME)], RoleParams] = Field(default_factory=dict)
    """An expert for the strategy `experts`; may be given several times."""
    few_shot_displays: str | None = None
    """File of solved examples for the strategy `few-shot`; the checkout's own when not given."""
    tasks: TaskParams = TaskParams()
    limits: LimitParams = LimitParams()
    concurrency: int = Field(8, ge=1)
    """Conversations at a time."""
    seed: int = 0
    """Seed of the conversations."""
    seed_rule: SeedRule = SeedRule.REQUEST
    """Which seed each request carries: its own, its conversation's (as tau2-bench), or none (as tau-bench v1)."""
    grace_s: float = Field(30.0, ge=0)
    """Seconds that running conversations get to finish after an interrupt."""
    stop_hopeless: bool = True
    """End a run whose first answers show that it can come to nothing: no call is ever parsed, or all are empty."""

    @property
    def ref(self) -> BenchRef:
        """The benchmark and where it is loaded from, as far as it is chosen."""
        return BenchRef(self.bench, "", self.tasks.split or "", self.source or "", self.path or "", self.python or "")


class RunParams(SharedRunParams):
    """One sweep cell: everything needed to run it."""

    env: str = Field(pattern=NAME)
    """Environment: airline, retail or telecom (tau2)."""
    strategy: Strategy = Strategy.FC
    """How the agent is prompted; tool-calling is another word for fc."""
    agent: RoleParams
    persona: str | None = Field(None, pattern=PERSONA)
    """How the customer behaves: a file under `params/personas/`, such as `anger` or `anger:strong`."""
    num_trials: int = Field(1, ge=1)
    """Trials of each task."""
    keep_itl: bool = False
    """Keep every inter-token gap in the call records."""

    @property
    def ref(self) -> BenchRef:
        """The benchmark, the env and where they are loaded from, as far as they are chosen."""
        return super().ref._replace(env=self.env)

    @property
    def roles(self) -> dict[str, RoleParams]:
        """Every model that the run needs, by part: `agent`, `user`, `judge`, `expert:<name>`; a person needs none."""
        found = {"agent": self.agent}
        if self.user_strategy is not UserStrategy.HUMAN:
            found["user"] = self.user
        if self.judge is not None:
            found["judge"] = self.judge
        if self.strategy is Strategy.EXPERTS:
            found |= {f"expert:{name}": role for name, role in self.experts.items()}
        return found


class Grid(Params):
    """The axes of a sweep, slowest first."""

    env: list[Annotated[str, Field(pattern=NAME)]] = Field(min_length=1)
    strategy: list[Strategy] = Field(min_length=1)
    agent: list[RoleParams] = Field(min_length=1)
    persona: list[Annotated[str, Field(pattern=PERSONA)]] = Field(default_factory=list)
    """Personas of the customer, each `anger` or `anger:strong`; an axis only when given."""
    num_trials: list[int] = Field(min_length=1)

    @field_validator("num_trials")
    @classmethod
    def _trials_are_positive(cls, value: list[int]) -> list[int]:
        if any(n < 1 for n in value):
            raise ValueError("num_trials must be 1 or more")
        return value


class SweepParams(SharedRunParams):
    """Many cells: the grid, and what all cells share."""

    name: str = Field(pattern=NAME)
    description: str = ""
    site: str = "local"
    grid: Grid
    parallel_settings: int = Field(2, ge=1)
    """Settings worked on at a time."""
    share_trials: bool = True
    """Cells that differ only in `num_trials` are views on one pool of trials."""

    @model_validator(mode="after")
    def _has_models(self) -> "SweepParams":
        if self.user_strategy is UserStrategy.HUMAN:
            raise ValueError("nobody can play the customer in the cells of a sweep; use `tautools run` for that")
        return self

    @property
    def roles(self) -> tuple[RoleParams, ...]:
        """Every model that some cell asks: agents, the customer, experts, the judge."""
        return (*self.grid.agent, self.user, *self.experts.values(), *([self.judge] if self.judge else []))
