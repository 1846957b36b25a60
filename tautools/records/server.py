"""What the registry knows about servers: records, certificates, checks."""

import socket
from typing import Any, Literal

from pydantic import Field

from tautools.records.base import Record, Thinking, ThinkingSwitch, Value
from tautools.records.setting import Sampling


class Check(Value):
    """One check of a server."""

    number: int
    name: str
    passed: bool | None
    """`None`: not applicable or not asked for."""
    detail: str = ""
    took_s: float = 0.0

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "-"}[self.passed]
        return f"{word:>6}  {self.number} {self.name:<14} {self.took_s:6.2f} s  {self.detail}"


class Demand(Value):
    """What the requests of a run ask of a server: a verification sends the same before."""

    sampling: Sampling = Sampling()
    thinking: Thinking = Thinking.DEFAULT
    thinking_switch: ThinkingSwitch = ThinkingSwitch.TEMPLATE
    tool_calls: bool = False
    seeded: bool = True
    concurrency: int = 8
    """Requests at a time."""

    def covers(self, other: "Demand") -> bool:
        """Whether a server that answered this will answer the other; the length of answers does not matter."""
        mine, theirs = (each.sampling.model_copy(update={"max_tokens": None}) for each in (self, other))
        return (
            (mine, self.thinking, self.thinking_switch) == (theirs, other.thinking, other.thinking_switch)
            and self.tool_calls >= other.tool_calls
            and self.seeded >= other.seeded
            and self.concurrency >= other.concurrency
        )


class Certificate(Record):
    """The checks of one moment: whether an address was the right server in working order."""

    server: str
    base_url: str
    model: str
    alias: str = ""
    issued_at: float
    checks: list[Check]
    versions: dict[str, str] = Field(default_factory=dict)
    flags: list[str] = Field(default_factory=list)
    """The command that started the server, word by word, when it is ours; values of secrets are hidden."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables that its params set; values of secrets are hidden."""
    cards: dict[str, str] = Field(default_factory=dict)
    """The server's cards at its launch, by index: their module id on Gaudi, else their UUID or index."""
    max_model_len: int | None = None
    simulated: bool = False
    without: dict[str, str] = Field(default_factory=dict)
    """What the server lacks without being broken (`tool calls`, `model list`), with the reason and what to do."""
    demands: list[Demand] = Field(default_factory=list)
    """What was sent as a run sends it, and answered."""

    @property
    def failed(self) -> Check | None:
        """The first check that failed."""
        return next((check for check in self.checks if check.passed is False), None)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return self.failed is None


class ServerRecord(Record):
    """What the registry knows about one server."""

    name: str
    backend: Literal["local", "slurm", "attached"] = "local"
    """Where it runs: a process of this machine, a job of Slurm, or somewhere of which only the address is known."""
    engine: str = "vllm"
    model: str
    """The served model name that requests carry."""
    alias: str = ""
    """A name given to this one launch and served alongside the model name, to identify it."""
    base_url: str
    """Ends in `/v1`."""
    key_file: str = ""
    """Path of the file that holds the key, mode 0600; empty for a server without one."""
    pid: int | None = None
    pid_started_at: float | None = None
    """Start time of the process [s since the epoch]; with the pid it names one process for ever."""
    host: str = ""
    job_id: str = ""
    """The Slurm job, of a server that is one."""
    shares_job: bool = False
    """Whether that job holds several servers, so that one of them may end while the job goes on."""
    log_out: str = ""
    log_err: str = ""
    argv: list[str] = Field(default_factory=list)
    cards: dict[str, str] = Field(default_factory=dict)
    """Cards that the launch gave it, by index, as in its certificate."""
    spec: dict[str, Any] = Field(default_factory=dict)
    site: dict[str, Any] = Field(default_factory=dict)
    """The site it was started on, so that it can be started again; empty: this machine as it is."""
    changes: list[str] = Field(default_factory=list)
    """What a restart changed of the server file, each as `name: old -> new`, with the cause."""
    started_at: float = 0.0
    certificate: Certificate | None = None
    simulated: bool = False
    owner: str = ""

    @property
    def process(self) -> tuple[int, float] | None:
        """Its process as pid and start time; None when it has none or it is not known."""
        if self.pid is None or self.pid_started_at is None:
            return None
        return self.pid, self.pid_started_at

    @property
    def on_this_host(self) -> bool:
        """Whether its process, if it has one, is one of this machine."""
        return self.host in {"", socket.gethostname()}
