"""The job script of one server, or of several that share a job. Pure: a person can read, check and submit it by hand.

The port is chosen on the node, because only there it is known which one is free; the job writes the address down and
the checks verify it. The key never stands in the script: the job reads it from its private file, or makes it there when
the script is submitted by hand. Compiled graphs of Gaudi servers belong to exact versions of the software, so they are
kept on the node's own disk in a folder named by those; a site may name a shared folder to copy them from and to. A
value that cannot stand in a job script is a `ParamsError`.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tautools.errors import ParamsError
from tautools.files import packaged_text
from tautools.params.models import ServerParams, SiteParams
from tautools.records import ServerRecord
from tautools.servers.accelerators.assignment import cards_needed, gres_for, job_card_lines, job_card_shares
from tautools.servers.placement import LaunchRequest
from tautools.servers.vllm.command import KEY_VARIABLE, RECIPES_VARIABLE, recipes_config, server_env, user_folder
from tautools.slurm.script import log_pattern, render_sbatch


def _recipe_lines(params: ServerParams, site: SiteParams, env: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the lines before and after a server of a Gaudi site; none for others, or where a person has chosen."""
    if site.device != "gaudi" or cards_needed(params, site) == 0 or RECIPES_VARIABLE in env:
        return [], []
    kind = f"tp{params.vllm.tensor_parallel_size}-{re.sub(r'[^A-Za-z0-9._+-]', '_', params.vllm.dtype or 'auto')}"
    values = {"root": f"{user_folder(site)}/recipes", "kind": kind, "store": site.recipe_store or ""}
    before = [
        *(f"recipe_{name}={shlex.quote(value)}" for name, value in values.items()),
        packaged_text(__package__, "recipes.sh"),
        f'[ -z "$software" ] || export {RECIPES_VARIABLE}="{recipes_config("$recipes")}"',
        "",
    ]
    return before, ["keep_recipes"]


_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_KERNEL_LINES = """
# A login shell sets this, a job's shell does not; without it Gaudi's compiler fails with synStatus=26
kernels=/usr/lib/habanalabs/libtpc_kernels.so
if [ -z "${GC_KERNEL_PATH:-}" ] && [ -e "$kernels" ]; then export GC_KERNEL_PATH="$kernels"; fi
""".strip()

_ANNOUNCE_PROGRAM = r"""
import json, os, random, secrets, socket, sys, time
folder, bind, asked = sys.argv[1], sys.argv[2], int(sys.argv[3])
record = json.loads(os.environ.pop("TAUTOOLS_RECORD"))
launches = os.path.join(folder, "launches")
os.makedirs(launches, mode=0o700, exist_ok=True)

def write(path, text):
    with open(f"{path}.{os.getpid()}.part", "w") as file:
        file.write(text)
    os.replace(file.name, path)

# Below the ports that the node gives to outgoing connections, so that none takes it while the model loads.
ports = [asked] if asked else random.sample(range(20000, 32000), 200)
for port in ports:
    with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
        try:
            probe.bind((bind, port))
        except OSError as error:
            if asked:
                sys.exit(f"ERROR: Address already in use: port {asked} on {bind}: {error}")
            continue
    break
else:
    sys.exit("ERROR: no free port on this node")
node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
host = bind
if bind in ("0.0.0.0", "::"):
    try:
        socket.getaddrinfo(node, None)
        host = node
    except OSError:
        host = socket.gethostname()
base_url = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"

base = os.path.join(launches, record["name"])
if os.path.exists(f"{base}.exit"):
    os.remove(f"{base}.exit")
if not os.path.exists(record["key_file"]):
    write(record["key_file"], secrets.token_urlsafe(24) + "\n")
job_id = os.environ["SLURM_JOB_ID"]
found = {"alias": record["alias"], "job_id": job_id, "host": node, "base_url": base_url, "at": time.time()}
found.update({log: record[log].replace("%j", job_id).replace("%%", "%") for log in ("log_out", "log_err")})
write(f"{base}.address", json.dumps(found))
verified = os.path.join(folder, record["name"] + ".json")
if not os.path.exists(f"{base}.json") and not os.path.exists(verified):
    found.pop("at")
    write(f"{base}.json", json.dumps(dict(record, started_at=time.time(), **{k: found[k] for k in found})))
print(port, base_url, node)
""".strip()


def _log_patterns(name: str, workspace: Path) -> tuple[str, str]:
    return log_pattern(workspace / "logs", name, "out"), log_pattern(workspace / "errors", name, "err")


def _server_lines(request: LaunchRequest, record: ServerRecord, workspace: Path, *, cards: Sequence[str]) -> list[str]:
    """Return what a job does for one server, in bash; it ends with the server's exit status.

    `cards` are the lines that give the server its cards.
    """
    params, site = request.params, request.site
    out, err = _log_patterns(record.name, workspace)
    record = record.model_copy(update={"log_out": out, "log_err": err})
    cache = workspace / "servers" / "cache" / record.name
    env = server_env(params, site, key="", cache=cache, inherited={})
    del env[KEY_VARIABLE]  # the job reads it
    if bad := [name for name in env if not _VARIABLE_NAME.fullmatch(name)]:
        raise ParamsError(
            f"{bad[0]!r} cannot be the name of an environment variable.", next_step="Correct `env` in its file."
        )
    before, after = _recipe_lines(params, site, env)
    folder, rule = shlex.quote(str(workspace / "servers")), "=" * 36
    return [
        "trap : TERM  # the end is written down too when Slurm ends the job",
        f"cd -- {shlex.quote(str(workspace))} || exit 1",
        "",
        *_environment_lines(site),
        *([_KERNEL_LINES] if site.device == "gaudi" else []),
        "unset VLLM_PORT",
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())),
        "",
        "# A free port of this node, and the address that others reach, written down for those who wait for it",
        f"export TAUTOOLS_RECORD={shlex.quote(record.model_dump_json(exclude={'certificate'}))}",
        f"found=$(umask 077; python3 - {folder} {shlex.quote(site.host)} {params.port or 0} <<'PYTHON'",
        _ANNOUNCE_PROGRAM,
        "PYTHON",
        ") || exit 1",
        "unset TAUTOOLS_RECORD",
        'read -r port base_url node <<< "$found"',
        f"{KEY_VARIABLE}=$(cat -- {shlex.quote(record.key_file)}) || exit 1",
        f"export {KEY_VARIABLE}",
        "",
        f'printf "%s\\n" {rule} "Starting {record.engine} server {record.name} on node: $node" \\',
        f'  {shlex.quote(f"Model: {record.model}")} "Server base: $base_url" {rule}',
        "",
        *cards,
        *before,
        *_run_lines(record, workspace, after),
    ]


def _environment_lines(site: SiteParams) -> list[str]:
    return [
        "# The environment of the servers",
        *(f"module load {' '.join(shlex.quote(word) for word in module.split())} || exit 1" for module in site.modules),
        *site.activate,
    ]


def _run_lines(record: ServerRecord, workspace: Path, after: list[str]) -> list[str]:
    command = ""
    for before, word in zip(["", *record.argv], record.argv, strict=False):
        command += " \\\n  " if word.startswith("--") and command else " " if command else ""
        command += '"$port"' if word == "$port" and before == "--port" else shlex.quote(word)
    base = shlex.quote(str(workspace / "servers" / "launches" / record.name))
    verified = shlex.quote(str(workspace / "servers" / f"{record.name}.json"))
    left = json.dumps({"alias": record.alias, "code": "%d"}).replace('"%d"', "%d")
    return [
        command,
        "code=$?",
        *after,
        "",
        "# What is left of it: its exit status; and it is no verified server any more",
        f"grep -qsF {record.alias} {base}.json {verified} || exit $code  # it was stopped and forgotten",
        f"printf {shlex.quote(left)} $code > {base}.exit",
        f"if grep -qsF {record.alias} {verified}; then mv -- {verified} {base}.json; fi",
        "exit $code",
    ]


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
    name = "+".join(names)[:64].rstrip("+")
    needed = [cards_needed(request.params, site) for request in requests]
    if len(names) > 1:
        body, what = _shared_lines(requests, records, workspace, needed), f"Servers {', '.join(names)} on one node"
    else:
        cards = job_card_lines(needed[0], site, asked=requests[0].params.cards)
        body = _server_lines(requests[0], records[0], workspace, cards=cards)
        what = f"Server {name}: {records[0].model}"
    out, err = _log_patterns(name, workspace)
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
        lines = _server_lines(request, record, workspace, cards=shares[number])
        functions += [f"serve_{number}() (", *lines, ")", ""]
    return [
        "trap : TERM  # the end of each server is written down too when Slurm ends the job",
        f"cd -- {shlex.quote(str(workspace))} || exit 1",
        f"names=({' '.join(shlex.quote(record.name) for record in records)})",
        f"launches={shlex.quote(str(workspace / 'servers' / 'launches'))}",
        "",
        *functions,
        *([*_environment_lines(site), *probe] if probe else []),
        packaged_text(__package__, "supervise.sh"),
        *_start_lines(requests, records, workspace),
        "wait_for_all",
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
