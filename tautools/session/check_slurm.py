"""Doctor checks of Slurm: its commands, the partition, this user's account and QOS, the job of this session."""

from __future__ import annotations

import getpass
import re
import time
from typing import TYPE_CHECKING

from tautools.session.findings import DoctorFinding, FindingStatus
from tautools.slurm import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.params.models import SiteParams
    from tautools.session.findings import SessionContext


_COMMANDS = ("sbatch", "squeue", "sacct", "scancel")
_MIB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def check_slurm(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look for Slurm's commands."""
    missing = [command for command in _COMMANDS if around.which(command) is None]
    if not around.site.uses_slurm:
        here = "not here" if missing else "here"
        yield DoctorFinding("slurm", FindingStatus.OK, f"{here}; the site {around.site.name} does not use it")
    elif missing:
        remedy = "Work in a session on the cluster, or choose another site with --site."
        yield DoctorFinding("slurm", FindingStatus.FAIL, f"not on PATH: {', '.join(missing)}", remedy)
    else:
        yield DoctorFinding("slurm", FindingStatus.OK, f"{', '.join(_COMMANDS)} are on PATH")


def check_partition(around: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the site's partition, cores, memory, cards and time with what Slurm says of the partition."""
    site = around.site
    if not site.uses_slurm or not site.partition or around.which("scontrol") is None:
        return
    file = f"params/sites/{site.name}.yaml"
    told = scontrol_fields(around.ask(["scontrol", "show", "partition", "-o", site.partition]))
    if not told:
        known = sorted({line.strip() for line in around.ask(["sinfo", "-h", "-o", "%R"])})
        found = f"Slurm tells of no partition {site.partition}"
        remedy = f"Choose one of {', '.join(known)} in {file}." if known else "Try `sinfo`: does Slurm answer here?"
        yield DoctorFinding("partition", FindingStatus.FAIL if known else FindingStatus.WARN, found, remedy)
        return
    wrong = [*_partition_faults(site, told), *_node_faults(site, around)]
    if wrong:
        yield DoctorFinding(
            "partition", FindingStatus.FAIL, f"{site.partition}: {'; '.join(wrong)}", f"Correct it in {file}."
        )
    else:
        nodes, state = told.get("Nodes", "?"), told.get("State", "?")
        yield DoctorFinding(
            "partition", FindingStatus.OK, f"{site.partition} is {state} with {nodes}, and has what a job asks for"
        )


def check_association(around: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the site's account and QOS with those this user may use."""
    site = around.site
    if not site.uses_slurm or not (site.account or site.qos) or around.which("sacctmgr") is None:
        return
    user = around.environ.get("USER") or getpass.getuser()
    words = ["sacctmgr", "-nP", "show", "assoc", "where", f"user={user}", "format=Account,Partition,QOS"]
    rows = [line.split("|") for line in around.ask(words)]
    pairs = [(row[0], row[1], row[2].split(",")) for row in rows if len(row) >= 3]
    asked = f"account {site.account or '(default)'}, QOS {site.qos or '(default)'}"
    if not pairs:
        remedy = "Try `sacctmgr show assoc user=$USER`; without accounting, the account and QOS cannot be checked."
        yield DoctorFinding("account", FindingStatus.WARN, f"{asked}: Slurm tells of no account of this user", remedy)
    elif any(_association_fits(site, pair) for pair in pairs):
        yield DoctorFinding("account", FindingStatus.OK, f"{asked}: this user may use them")
    else:
        offer = "; ".join(f"{account} with {' or '.join(qos)}" for account, _partition, qos in pairs)
        remedy = f"Write a pair that is yours into params/sites/{site.name}.yaml: {offer}."
        yield DoctorFinding("account", FindingStatus.FAIL, f"{asked}: not for this user", remedy)


def check_job(around: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the job that this session runs in with the site, and tell the time it has left."""
    job = around.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal():
        return
    told = scontrol_fields(around.ask(["scontrol", "show", "job", "-o", job])) if around.which("scontrol") else {}
    site = around.site
    asked = {"partition": site.partition, "qos": site.qos, "account": site.account}
    have = {name: _job_field(name, told, around) for name in asked}
    wrong = [f"{name} is {have[name]}, the site says {want}" for name, want in asked.items()
             if want and have[name] and have[name] != want]  # fmt: skip
    found = f"job {job} in {have['partition'] or 'an unnamed partition'}" + _job_size(told)
    if wrong:
        remedy = f"Jobs that tautools submits ask for what params/sites/{site.name}.yaml says; correct it there."
        yield DoctorFinding("job", FindingStatus.WARN, f"{found}: {'; '.join(wrong)}", remedy)
    else:
        yield DoctorFinding("job", FindingStatus.OK, found)
    left = _seconds_left(job, around)
    if left is not None:
        remedy = "Work that is cut off stays pending; run it again in a new session." if left < 3600 else ""
        yield DoctorFinding(
            "time left", FindingStatus.WARN if remedy else FindingStatus.OK, f"{left / 60:.0f} min of this job", remedy
        )


def scontrol_fields(lines: Sequence[str]) -> dict[str, str]:
    """Return the `Name=value` words of `scontrol show … -o`."""
    words = (word.partition("=") for line in lines for word in line.split())
    return {name: value for name, equals, value in words if name and equals}


def _partition_faults(site: SiteParams, told: dict[str, str]) -> Iterator[str]:
    if told.get("State", "UP") != "UP":
        yield f"it is {told['State']}"
    for what, want in (("Qos", site.qos), ("Accounts", site.account)):
        allowed = told.get(f"Allow{what}", "ALL")
        if want and allowed != "ALL" and want not in allowed.split(","):
            yield f"{want} is not among its {what}: {allowed}"
    longest = parse_duration(told.get("MaxTime", ""))
    asked = parse_duration(site.time_limit) if site.time_limit else None
    if longest is not None and asked is not None and asked > longest:
        yield f"time_limit {site.time_limit} is above its {told['MaxTime']}"


def _node_faults(site: SiteParams, around: SessionContext) -> Iterator[str]:
    """Say what no node of the partition has, each thing alone."""
    rows = [
        line.strip().split("|") for line in around.ask(["sinfo", "-h", "-p", str(site.partition), "-o", "%c|%m|%G"])
    ]
    nodes = [row for row in rows if len(row) >= 3]
    if not nodes:
        return
    cores = max(_leading_number(row[0]) for row in nodes)
    memory_gib = max(_leading_number(row[1]) for row in nodes) / 1024
    if site.cores and cores and site.cores > cores:
        yield f"cores {site.cores} is above the {cores} of its nodes"
    if site.memory_gib and memory_gib and site.memory_gib > memory_gib:
        yield f"memory_gib {site.memory_gib} is above the {memory_gib:.0f} of its nodes"
    if site.gres and not any(_offers_gres(row[2], site.gres) for row in nodes):
        yield f"gres {site.gres} is on none of its nodes, which have {', '.join(sorted({row[2] for row in nodes}))}"


def _offers_gres(offered: str, asked: str) -> bool:
    """Whether a node's `gpu:hl225:8(S:0-1)` holds `gpu:hl225:1`; a request may leave out type or number."""
    kind, number = _parse_gres(asked)
    for each in re.sub(r"\([^)]*\)", "", offered).split(","):
        have, count = _parse_gres(each)
        if (have == kind or have.startswith(f"{kind}:")) and count >= number:
            return True
    return False


def _parse_gres(text: str) -> tuple[str, int]:
    kind, _colon, last = text.strip().rpartition(":")
    return (kind, int(last)) if last.isdecimal() else (text.strip(), 1)


def _association_fits(site: SiteParams, pair: tuple[str, str, list[str]]) -> bool:
    account, partition, qos = pair
    return (
        site.account in {None, account}
        and (site.qos is None or site.qos in qos)
        and (not partition or site.partition in {None, partition})
    )


def _job_field(name: str, told: dict[str, str], around: SessionContext) -> str:
    shown = {"partition": "Partition", "qos": "QOS", "account": "Account"}[name]
    return told.get(shown) or around.environ.get(f"SLURM_JOB_{name.upper()}", "")


def _job_size(told: dict[str, str]) -> str:
    """Return cores, memory, cards and time limit of a job in words; empty when Slurm does not tell."""
    memory = re.search(r"mem=([\d.]+)([KMGT])", told.get("TRES", ""))
    cards = re.search(r"(?:gres[:/])?(gpu[\w:]*)", told.get("TresPerNode", ""))
    parts = [f"{told['NumCPUs']} cores"] if "NumCPUs" in told else []
    parts += [f"{float(memory[1]) * _MIB[memory[2]] / 1024:.0f} GiB"] if memory else []
    parts += [cards[1]] if cards else []
    parts += [f"time limit {told['TimeLimit']}"] if "TimeLimit" in told else []
    return f", {', '.join(parts)}" if parts else ""


def _seconds_left(job: str, around: SessionContext) -> float | None:
    ends = around.environ.get("SLURM_JOB_END_TIME", "")
    if ends.isdecimal():
        return int(ends) - time.time()
    # Older versions of Slurm do not set the variable.
    lines = around.ask(["squeue", "-h", "-j", job, "-o", "%L"]) if around.which("squeue") else []
    return parse_duration(lines[0]) if lines else None


def _leading_number(text: str) -> int:
    """Return the number that `40` or `163840+` begins with."""
    match = re.match(r"\d+", text.strip())
    return int(match[0]) if match else 0
