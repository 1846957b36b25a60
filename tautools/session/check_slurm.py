"""Doctor checks of Slurm: its commands, its controller, the partition, this user's account and QOS, this job."""

import getpass
import re
import time
from collections.abc import Iterator, Sequence

from tautools.params.models import SiteParams
from tautools.session.findings import DoctorFinding, SessionContext, fails, good, warns
from tautools.slurm.jobs import is_unreachable, parse_duration

_NODE = re.compile(r"(?P<cores>\d+)[^|]*\|(?P<mib>\d+)[^|]*\|(?P<gres>[^|]+)")
"""A line of `sinfo -o "%c|%m|%G"`, such as `152|1000000+|gpu:hl225:8(S:0-1)`."""
_COMMANDS = ("sbatch", "squeue", "sacct", "scancel")


def check_slurm(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check Slurm for a site that uses it: commands, controller, partition, account and QOS."""
    site = context.site
    missing = [command for command in _COMMANDS if context.which(command) is None]
    if not site.uses_slurm:
        yield good("slurm", f"{'not here' if missing else 'here'}; the site {site.name} does not use it")
        return
    if not missing and (problem := _controller_problem(context)):
        next_step = "`scontrol ping` says when it is up again; nothing in the site file needs to be corrected."
        yield fails("slurm", f"the controller does not answer: {problem}", next_step)
        return
    next_step = "Work in a session on the cluster, or choose another site with --site."
    absent = f"not on PATH: {', '.join(missing)}"
    yield fails("slurm", absent, next_step, when=bool(missing), fine=f"{', '.join(_COMMANDS)} are on PATH")
    yield from _check_partition(context)
    yield from _check_association(context)


def _controller_problem(context: SessionContext) -> str:
    """Return what Slurm says when its controller cannot be reached; empty when it can."""
    done = context.run(["squeue", "-h", "-o", "%i", "-u", _user(context)])
    if done is None:
        return "`squeue` does not end"
    message = done.stderr.strip()
    return message.splitlines()[-1] if done.exit_code != 0 and is_unreachable(message) else ""


def _check_partition(context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the site's partition, cores, memory, cards and time with what Slurm says about the partition."""
    site = context.site
    if not site.partition or context.which("scontrol") is None:
        return
    file = f"params/sites/{site.name}.yaml"
    fields = scontrol_fields(context.ask(["scontrol", "show", "partition", "-o", site.partition]))
    if not fields:
        known = sorted({line.strip() for line in context.ask(["sinfo", "-h", "-o", "%R"])})
        next_step = f"Choose one of {', '.join(known)} in {file}." if known else "Try `sinfo`: does Slurm answer here?"
        yield (fails if known else warns)("partition", f"Slurm knows no partition {site.partition}", next_step)
        return
    faults = "; ".join([*_partition_faults(site, fields), *_node_faults(context)])
    state = f"{fields.get('State', '?')} with {fields.get('Nodes', '?')}"
    fine = f"{site.partition} is {state}, and has what a job asks for"
    yield fails("partition", faults and f"{site.partition}: {faults}", f"Correct it in {file}.", fine=fine)


def _check_association(context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the site's account and QOS with those this user may use."""
    site = context.site
    if not (site.account or site.qos) or context.which("sacctmgr") is None:
        return
    words = ["sacctmgr", "-nP", "show", "assoc", "where", f"user={_user(context)}", "format=Account,Partition,QOS"]
    rows = [row for line in context.ask(words) if len(row := line.split("|")) >= 3]
    fitting = (
        site.account in {None, account}
        and (site.qos is None or site.qos in qos.split(","))
        and (not partition or site.partition in {None, partition})
        for account, partition, qos, *_ in rows
    )
    wanted = f"account {site.account or '(default)'}, QOS {site.qos or '(default)'}"
    if not rows:
        next_step = "Try `sacctmgr show assoc user=$USER`; without accounting, the account and QOS cannot be checked."
        yield warns("account", f"{wanted}: Slurm lists no account of this user", next_step)
    elif any(fitting):
        yield good("account", f"{wanted}: this user may use them")
    else:
        offer = "; ".join(f"{account} with {qos.replace(',', ' or ')}" for account, _partition, qos, *_ in rows)
        next_step = f"Write a pair that is yours into params/sites/{site.name}.yaml: {offer}."
        yield fails("account", f"{wanted}: not for this user", next_step)


def check_job(context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the job that this session runs in with the site, and tell the time it has left."""
    job = context.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal():
        return
    fields = scontrol_fields(context.ask(["scontrol", "show", "job", "-o", job]))
    site = context.site
    wanted = {"Partition": site.partition, "QOS": site.qos, "Account": site.account}
    have = {field: fields.get(field) or context.environ.get(f"SLURM_JOB_{field.upper()}", "") for field in wanted}
    wrong = "; ".join(
        f"{field.lower()} is {have[field]}, the site says {want}"
        for field, want in wanted.items()
        if want and have[field] not in {"", want}
    )
    found = f"job {job} in {have['Partition'] or 'an unnamed partition'}" + _job_size(fields)
    next_step = f"Jobs that tautools submits ask for what params/sites/{site.name}.yaml says; correct it there."
    yield warns("job", wrong and f"{found}: {wrong}", next_step, fine=found)
    left_s = _seconds_left(job, context)
    if left_s is not None:
        next_step = "Work that is cut off stays pending; run it again later."
        yield warns("time left", f"{left_s / 60:.0f} min of this job", next_step, when=left_s < 3600)


def scontrol_fields(lines: Sequence[str]) -> dict[str, str]:
    """Return the `Name=value` words of `scontrol show … -o`."""
    words = (word.partition("=") for line in lines for word in line.split())
    return {name: value for name, equals, value in words if name and equals}


def _user(context: SessionContext) -> str:
    return context.environ.get("USER") or getpass.getuser()


def _partition_faults(site: SiteParams, fields: dict[str, str]) -> Iterator[str]:
    if fields.get("State", "UP") != "UP":
        yield f"it is {fields['State']}"
    for what, want in (("Qos", site.qos), ("Accounts", site.account)):
        allowed = fields.get(f"Allow{what}", "ALL")
        if want and allowed != "ALL" and want not in allowed.split(","):
            yield f"{want} is not among its {what}: {allowed}"
    longest = parse_duration(fields.get("MaxTime", ""))
    wanted = parse_duration(site.time_limit) if site.time_limit else None
    if longest is not None and wanted is not None and wanted > longest:
        yield f"time_limit {site.time_limit} is above its {fields['MaxTime']}"


def _node_faults(context: SessionContext) -> Iterator[str]:
    """Say what no node of the partition has, each thing alone."""
    site = context.site
    lines = context.ask(["sinfo", "-h", "-p", str(site.partition), "-o", "%c|%m|%G"])
    nodes = [row for line in lines if (row := _NODE.match(line.strip()))]
    cores = max((int(row["cores"]) for row in nodes), default=0)
    memory_gib = max((int(row["mib"]) for row in nodes), default=0) / 1024
    gres = sorted({row["gres"] for row in nodes})
    if site.cores and cores and site.cores > cores:
        yield f"cores {site.cores} is above the {cores} of its nodes"
    if site.memory_gib and memory_gib and site.memory_gib > memory_gib:
        yield f"memory_gib {site.memory_gib} is above the {memory_gib:.0f} of its nodes"
    if site.gres and gres and not any(_offers_gres(each, site.gres) for each in gres):
        yield f"gres {site.gres} is on none of its nodes, which have {', '.join(gres)}"


def _offers_gres(offered: str, asked: str) -> bool:
    """Whether a node's `gpu:hl225:8(S:0-1)` holds `gpu:hl225:1`; a request may leave out type or number."""
    kind, number = _parse_gres(asked)
    there = map(_parse_gres, re.sub(r"\([^)]*\)", "", offered).split(","))
    return any(f"{have}:".startswith(f"{kind}:") and count >= number for have, count in there)


def _parse_gres(text: str) -> tuple[str, int]:
    kind, _colon, last = text.strip().rpartition(":")
    return (kind, int(last)) if last.isdecimal() else (text.strip(), 1)


def _job_size(fields: dict[str, str]) -> str:
    """Return cores, memory, cards and time limit of a job in words; empty when Slurm does not say."""
    memory = re.search(r"mem=([\d.]+)([KMGT])", fields.get("TRES", ""))
    cards = re.search(r"(?:gres[:/])?(gpu[\w:]*)", fields.get("TresPerNode", ""))
    parts = [
        f"{fields['NumCPUs']} cores" if "NumCPUs" in fields else "",
        f"{memory[1]} {memory[2]}iB" if memory else "",
        cards[1] if cards else "",
        f"time limit {fields['TimeLimit']}" if "TimeLimit" in fields else "",
    ]
    return "".join(f", {part}" for part in parts if part)


def _seconds_left(job: str, context: SessionContext) -> float | None:
    ends = context.environ.get("SLURM_JOB_END_TIME", "")
    if ends.isdecimal():
        return int(ends) - time.time()
    # Older versions of Slurm do not set the variable.
    lines = context.ask(["squeue", "-h", "-j", job, "-o", "%L"])
    return parse_duration(lines[0]) if lines else None
