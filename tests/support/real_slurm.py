"""A real Slurm on one machine: a controller, three nodes of eight cards each, accounting with enforced account and QOS.

    python real_slurm.py start|stop|status

Needs root and Debian's `slurm-wlm munge slurmdbd mariadb-server`. Everything lies in one folder of its own with ports
of its own; whoever sets `SLURM_CONF` to its slurm.conf uses it. Works in a container: no systemd, no cgroups.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

FOLDER = Path(os.environ.get("TAUTOOLS_TEST_SLURM", "/var/lib/tautools-slurm"))
CONF = FOLDER / "slurm.conf"
FOR_TESTS = FOLDER / "for-tests"
USERS = FOLDER.with_name(f"{FOLDER.name}.users")
"""Runs of tests that use it hold this file's lock; it lies beside the folder, which is removed as a whole."""
ACCOUNT = "class_class59827694spring_2026"
QOS = "class_gaudi"
URGENT = "urgent"
"""A hidden partition over the same nodes, whose jobs push those of the other one out."""
NODES = ("gaudi001", "gaudi002", "gaudi003")
COMMANDS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr")
PORTS = {"database": 16806, "slurmdbd": 16819, "slurmctld": 16817, "slurmd": "[17001-17003]"}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"


def missing() -> str:
    """Say what is not there; empty when a Slurm can be started."""
    absent = [command for command in COMMANDS if shutil.which(command, path=PATH) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    return "" if os.geteuid() == 0 else "root is needed"


def start(*, for_tests: bool = False) -> Path:
    """Bring Slurm up, or leave it alone when it is; return its slurm.conf.

    One that was started for tests ends with the last of them; one that a person asked for stays.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not works():
            _stop_all()
            _write_files()
            _start_all()
            FOR_TESTS.touch()
        if not for_tests:
            FOR_TESTS.unlink(missing_ok=True)
    return CONF


@contextlib.contextmanager
def used() -> Iterator[None]:
    """Hold a Slurm in use, so that no other run of tests ends it meanwhile."""
    with USERS.open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield


def stop_unused() -> None:
    """Stop a Slurm that was started for tests, unless another run of tests uses it; that one will stop it."""
    if not FOR_TESTS.exists():
        return
    with USERS.open("a") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        stop()


def stop() -> None:
    """End every daemon and job, and remove the folder."""
    if not FOLDER.exists():
        return
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _stop_all()
        shutil.rmtree(FOLDER)


def works() -> bool:
    """Whether all nodes can take jobs and the accounting answers."""
    if not CONF.exists():
        return False
    nodes = _ask("sinfo", "-h", "-N", "-o", "%N %t").split("\n")
    usable = {line.split()[0] for line in nodes if line.endswith((" idle", " mix", " alloc", " comp"))}
    return usable == set(NODES) and QOS in _ask("sacctmgr", "-n", "-P", "show", "assoc", "format=account,qos")


def _write_files() -> None:
    """Lay the folder out anew; nothing of a former cluster is kept."""
    for path in FOLDER.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("munge", "state", "spool", "log", "run", "cards"):
        (FOLDER / name).mkdir(mode=0o755)
    for name in ("database", "socket"):
        (FOLDER / name).mkdir()
        shutil.chown(FOLDER / name, "mysql", "mysql")
    for number in range(8):
        os.mknod(FOLDER / "cards" / f"hl{number}", 0o20666, os.makedev(1, 3))
    _private("munge/key", secrets.token_bytes(128))
    password = secrets.token_hex(12)
    _private(
        "init.sql", f"CREATE DATABASE slurm;\nGRANT ALL ON slurm.* TO slurm@'127.0.0.1' IDENTIFIED BY '{password}';\n"
    )
    shutil.chown(FOLDER / "init.sql", "mysql", "mysql")
    _private("slurmdbd.conf", _slurmdbd_conf(password))
    (FOLDER / "gres.conf").write_text(f"NodeName=gaudi[001-003] Name=gpu Type=hl225 File={FOLDER}/cards/hl[0-7]\n")
    _write_conf(accounting=False)


def _write_conf(*, accounting: bool) -> None:
    host = socket.gethostname().split(".")[0]
    store = (
        f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost={host}\n"
        f"AccountingStoragePort={PORTS['slurmdbd']}\nAccountingStorageEnforce=associations,limits,qos\n"
    )
    CONF.write_text(
        f"""ClusterName=dev
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={PORTS["slurmctld"]}
SlurmUser=root
AuthInfo=socket={FOLDER}/munge/socket
AccountingStoragePass={FOLDER}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
MpiDefault=none
KillWait=5
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
StateSaveLocation={FOLDER}/state
SlurmdSpoolDir={FOLDER}/spool/%n
SlurmctldPidFile={FOLDER}/run/slurmctld.pid
SlurmdPidFile={FOLDER}/run/slurmd-%n.pid
SlurmctldLogFile={FOLDER}/log/slurmctld.log
SlurmdLogFile={FOLDER}/log/slurmd-%n.log
{store if accounting else ""}NodeName=gaudi[001-003] NodeHostname={host} NodeAddr=127.0.0.1 Port={PORTS["slurmd"]} \
CPUs=40 RealMemory=163840 Gres=gpu:hl225:8
PartitionName=gaudi Nodes=gaudi[001-003] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName={URGENT} Nodes=gaudi[001-003] MaxTime=INFINITE State=UP PriorityTier=9 Hidden=YES
"""
    )


def _slurmdbd_conf(password: str) -> str:
    host = socket.gethostname().split(".")[0]
    return f"""AuthType=auth/munge
AuthInfo=socket={FOLDER}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={PORTS["slurmdbd"]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={PORTS["database"]}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
PidFile={FOLDER}/run/slurmdbd.pid
LogFile={FOLDER}/log/slurmdbd.log
"""


def _start_all() -> None:
    munge = FOLDER / "munge"
    files = [f"--{name}-file={munge}/{name}" for name in ("pid", "log", "seed")]
    _do("munged", f"--key-file={munge}/key", f"--socket={munge}/socket", *files)
    _do("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={FOLDER}/database", "--skip-test-db")
    _do(
        "setsid", "--fork", "mariadbd", "--no-defaults", "--user=mysql",
        f"--datadir={FOLDER}/database", f"--socket={FOLDER}/socket/mysql",
        f"--port={PORTS['database']}", "--bind-address=127.0.0.1", f"--init-file={FOLDER}/init.sql",
        "--innodb-log-file-size=16M", f"--pid-file={FOLDER}/database/pid",
    )  # fmt: skip
    _wait("the database", lambda: _listens(PORTS["database"]))
    _do("slurmdbd")
    _wait("slurmdbd", lambda: _listens(PORTS["slurmdbd"]))
    _write_conf(accounting=True)
    user = pwd.getpwuid(os.geteuid()).pw_name
    for words in (
        ["cluster", "dev"],
        ["qos", QOS],
        ["account", ACCOUNT, "cluster=dev"],
        ["user", user, f"account={ACCOUNT}", "cluster=dev", f"qos={QOS}", f"defaultqos={QOS}"],
    ):
        _wait(f"sacctmgr add {words[0]}", lambda words=words: _run("sacctmgr", "-i", "add", *words).returncode == 0)
    _do("slurmctld")
    for node in NODES:
        _do("slurmd", "-N", node)
    _wait("three idle nodes", works)


def _stop_all() -> None:
    """End what belongs to the folder and nothing else: its daemons by their command line and environment."""
    processes = [process for process in psutil.process_iter() if _is_ours(process)]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _is_ours(process: psutil.Process) -> bool:
    """Whether it is a daemon of this folder, or a job that one of its nodes runs."""
    try:
        daemon = process.name() in {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd"}
        mine = process.environ().get("SLURM_CONF") == str(CONF)
        return mine and (daemon or "SLURM_JOB_ID" in process.environ()) and process.pid != os.getpid()
    except psutil.Error:
        return False


def _private(name: str, data: bytes | str) -> None:
    path = FOLDER / name
    path.touch(mode=0o600)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))}
    return kept | {"SLURM_CONF": str(CONF), "PATH": PATH}


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=_environment(), capture_output=True, text=True, timeout=60, check=False)


def _ask(*words: str) -> str:
    try:
        return _run(*words).stdout.strip()
    except subprocess.TimeoutExpired:
        return ""


def _do(*words: str) -> None:
    done = _run_quietly(words)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}; see {FOLDER}/log")


def _run_quietly(words: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    """Daemons keep the streams they were given, so they get a file and no pipe."""
    with (FOLDER / "log" / f"start-{words[0]}.log").open("ab") as log:
        return subprocess.run(
            words,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=120,
            check=False,
            cwd="/",
        )


def _listens(port: int | str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def _wait(what: str, condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come up in {timeout_s:g} s; see {FOLDER}/log")
        time.sleep(0.2)


def main(words: list[str]) -> int:
    """Do what the one word says."""
    if words not in (["start"], ["stop"], ["status"]):
        print(__doc__)
        return 2
    if missing():
        print(f"A Slurm cannot be started here: {missing()}.")
        return 1
    if words == ["status"]:
        print("up" if works() else "down")
        return 0 if works() else 1
    if words == ["stop"]:
        stop()
        return 0
    print(f"export SLURM_CONF={start()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
