"""The job script of one server, or of several that share a job. Pure; `slurm_script` has what a job does for each."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tautools.errors import ParamsError
from tautools.servers.accelerators.assignment import cards_needed, gres_for, job_card_lines, job_card_shares
from tautools.servers.backends.slurm_script import environment_lines, log_patterns, server_lines
from tautools.slurm.script import render_sbatch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.servers.placement import LaunchRequest


_SUPERVISE = r"""
set -m  # each server leads a process group of its own
pids=() asked=()

runs() {
  [ -n "${pids[$1]:-}" ] && kill -0 -- "-${pids[$1]}" 2> /dev/null
}

tend() {  # once a second: end the servers for which somebody has left a note
  local i note
  sleep 1
  for i in "${!names[@]}"; do
    note="$launches/${names[$i]}.stop"
    [ -e "$note" ] || continue
    if ! runs "$i"; then rm -f -- "$note"; continue; fi
    asked[$i]=$((${asked[$i]:-0} + 1))
    if [ "${asked[$i]}" -gt 20 ]; then kill -KILL -- "-${pids[$i]}"
    elif [ $((${asked[$i]} % 3)) -eq 1 ]; then kill -TERM -- "-${pids[$i]}"
    fi
  done
}

loaded() {  # whether the next server may start: this one has its weights, or has ended
  grep -qsE 'Loading weights took|Model loading took|Application startup complete|Serving .* on http' "$1" "$2" ||
    [ -e "$launches/../${names[$3]}.json" ] || ! runs "$3"
}
""".strip()

_WAIT_FOR_ALL = r"""
while :; do
  left=0
  for i in "${!pids[@]}"; do if runs "$i"; then left=1; fi; done
  [ "$left" = 1 ] || break
  tend
done
code=0
for i in "${!pids[@]}"; do wait "${pids[$i]}" || code=$?; done
exit "$code"
""".strip()


def job_script(requests: Sequence[LaunchRequest], records: Sequence[ServerRecord], workspace: Path) -> str:
    """Return the whole text of the job script of one server, or of several that share the job.

    Parameters
    ----------
    requests : sequence of LaunchRequest
        What to serve, and what a job of the site asks for; cores and memory count for each server.
    records : sequence of ServerRecord
        Their launches; the job registers those that are not registered yet.
    workspace : Path
        Folder of registry and logs, which the nodes see too; absolute.
    """
    site, names = requests[0].site, [record.name for record in records]
    needed = [cards_needed(request.params, site) for request in requests]
    name = "+".join(names)[:64].rstrip("+")
    if len(names) > 1:
        body, what = _shared_lines(requests, records, workspace, needed), f"Servers {', '.join(names)} on one node"
    else:
        cards = job_card_lines(needed[0], site, asked=requests[0].params.cards)
        body = server_lines(requests[0], records[0], workspace, cards=cards)
        what = f"Server {name}: {records[0].model}"
    out, err = log_patterns(name, workspace)
    asked = {
        "job-name": name,
        "account": site.account,
        "partition": site.partition,
        "qos": site.qos,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": None if site.cores is None else site.cores * len(names),
        "mem": None if site.memory_gib is None else f"{site.memory_gib * len(names)}G",
        "gres": gres_for(site, sum(needed)),
        "constraint": site.constraint,
        "exclude": ",".join(site.exclude) or None,
        "time": site.time_limit,
        "output": out,
        "error": err,
    }
    note = f"{what}. Submit it by hand in {workspace}: mkdir -p logs errors && sbatch FILE"
    text = render_sbatch(asked, body, note=note)
    if "\0" in text:
        raise ParamsError(f"Server {name!r} has a NUL byte in one of its values.", next_step="Remove it from its file.")
    return text


def _shared_lines(
    requests: Sequence[LaunchRequest], records: Sequence[ServerRecord], workspace: Path, needed: Sequence[int]
) -> list[str]:
    site, shares = requests[0].site, job_card_shares(needed, requests[0].site)
    # Read once, before the first server starts: afterwards its cards would no longer be idle.
    probe = job_card_lines(sum(needed), site, errors=[_log_word(record, workspace, "err") for record in records])
    functions: list[str] = []
    for number, (request, record) in enumerate(zip(requests, records, strict=True)):
        # Subshells: what one server loads, exports and ends does not concern the others.
        lines = server_lines(request, record, workspace, cards=shares[number])
        functions += [f"serve_{number}() (", *lines, ")", ""]
    return [
        "trap : TERM  # the end of each server is written down too when Slurm ends the job",
        f"cd -- {shlex.quote(str(workspace))} || exit 1",
        f"names=({' '.join(shlex.quote(record.name) for record in records)})",
        f"launches={shlex.quote(str(workspace / 'servers' / 'launches'))}",
        "",
        *functions,
        *([*environment_lines(site), *probe] if probe else []),
        _SUPERVISE,
        "",
        *_start_lines(requests, records, workspace),
        _WAIT_FOR_ALL,
    ]


def _log_word(record: ServerRecord, workspace: Path, end: str) -> str:
    """Return the bash word for one of a server's logs."""
    folder = workspace / ("logs" if end == "out" else "errors")
    return f'{shlex.quote(str(folder / record.name))}_"$SLURM_JOB_ID".{end}'


def _start_lines(requests: Sequence[LaunchRequest], records: Sequence[ServerRecord], workspace: Path) -> list[str]:
    lines = []
    for number, (request, record) in enumerate(zip(requests, records, strict=True)):
        logs = [_log_word(record, workspace, end) for end in ("out", "err")]
        lines += [
            f"# {record.name}",
            f'rm -f -- "$launches"/{record.name}.stop',
            f"serve_{number} >> {logs[0]} 2>> {logs[1]} &",
            f"pids[{number}]=$!",
        ]
        stagger = request.params.stagger
        if stagger is not None and number + 1 < len(requests):
            may_start = f"until loaded {logs[0]} {logs[1]} {number}"
            lines.append(f"{may_start if stagger == 'loaded' else f'for _ in $(seq {round(stagger)})'}; do tend; done")
        lines.append("")
    return lines
