"""What is known of the servers of a workspace, on disk.

::

    servers/                   0700
      <name>.json              a verified server: its record with the certificate, written when all checks passed
      <name>.key               its key, 0600
      launches/<name>.json     started, not verified (yet); a failed start stays visible here
      launches/<name>.doing    who is verifying or stopping it, by pid and start time
      launches/<name>.exit     its exit status, when the process that started it, or its job, lived to see it
      launches/<name>.lease    what its watchdog saw last
      launches/<name>.sbatch   the script of its job on Slurm
      launches/<name>.warm     that it has answered a run: from then on its requests are not cold any more
      launches/<name>.address  where its job says that it answers
      launches/<name>.stop     asks a job of several servers to end this one; the job removes it when it has
      launches/.lock           there while a process starts servers
      cache/starts.jsonl       how long former starts took

Programs that only want working servers read `servers/*.json`. Each file is replaced whole. A record names one launch by
its alias; the alias is compared before a record is removed or marked, so an old handle never touches the files of a
newer launch of the same name.
"""

import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from tautools.errors import (
    NotReadyError,
    OldWorkspaceError,
    ParamsError,
    RecordError,
    ServerError,
    UnknownServerError,
    unknown_name,
)
from tautools.files import ensure_folder, exclusive, write_atomic
from tautools.params.keys import read_key
from tautools.records import ServerRecord
from tautools.shell import group_members, process_alive, this_process

_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_JOB_NOTE = ("job_id", "host", "base_url", "log_out", "log_err", "at")
_LAUNCH_FILES = ("address", "sbatch", "exit", "doing", "stop", "warm", "json")


def check_name(name: str) -> str:
    """Return `name` when files and log lines can carry it; raise a ParamsError when not."""
    if not _SERVER_NAME.fullmatch(name):
        raise ParamsError(
            f"{name!r} cannot be the name of a server.",
            next_step="Use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    return name


class Registry:
    """The servers of one workspace, whose `servers/` holds the records. Reading creates nothing."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = Path(workspace)
        self.folder = self.workspace / "servers"
        self._launches = self.folder / "launches"

    def scan(self) -> tuple[Sequence[ServerRecord], Sequence[RecordError]]:
        """Read every known server by name, verified or not, and what is wrong with each file that cannot be read."""
        records: dict[str, ServerRecord] = {}
        problems = []
        for folder in (self._launches, self.folder):  # a verified record takes precedence
            for path in sorted(folder.glob("*.json")):
                try:
                    if (record := self._read(path)) is not None:
                        records[record.name] = record
                except RecordError as error:
                    problems.append(error)
        return [records[name] for name in sorted(records)], problems

    def list(self) -> list[ServerRecord]:
        """Return every known server by name, verified or not; a file that cannot be read is left out."""
        return list(self.scan()[0])

    def get(self, name: str) -> ServerRecord:
        """Return the record of one server; an unknown name is an UnknownServerError with the nearest."""
        if (record := self.find(name)) is not None:
            return record
        raise unknown_name(
            UnknownServerError,
            "server",
            name,
            [known.name for known in self.list()],
            of=f"registered in {self.folder}",
            next_step=f"Start it with `tautools server up {name}`, or look with `tautools server ls`.",
        )

    def find(self, name: str) -> ServerRecord | None:
        """Return the record of one server, or None."""
        check_name(name)
        return self._read(self.folder / f"{name}.json") or self._read(self._launches / f"{name}.json")

    def ports(self) -> set[int]:
        """Return the ports of this machine's registered servers, some of which have not bound theirs yet."""
        return {urlsplit(record.base_url).port or 0 for record in self.list() if record.on_this_host}

    def current(self, record: ServerRecord) -> ServerRecord | None:
        """Return what is registered now of this very launch; None when it was stopped or replaced."""
        known = self.find(record.name)
        if known is None or known.alias != record.alias:
            return None
        # An alias belongs to one launch; the address of a job's server is known only when the job has begun.
        return known if record.alias or known.base_url == record.base_url else None

    def require(self, record: ServerRecord) -> ServerRecord:
        """Return what is registered now of this very launch; raise a NotReadyError when it was stopped or replaced."""
        if (known := self.current(record)) is not None:
            return known
        raise NotReadyError(
            f"Server {record.name!r} of this handle was stopped or replaced.",
            next_step="Start it again, or take a new handle from the registry.",
        )

    def key(self, record: ServerRecord) -> str:
        """Return the server's key; empty when it has none. A ServerError is raised when the key's file is gone."""
        if not record.key_file:
            return ""
        try:
            return read_key(Path(record.key_file).read_text(), f"the file {record.key_file}")
        except (OSError, ValueError, ParamsError) as error:
            raise ServerError(
                f"The key of server {record.name!r} cannot be read.",
                evidence=str(error),
                next_step=f"Stop it with `tautools server stop {record.name}` and start it again.",
            ) from error

    def claim(self) -> AbstractContextManager[None]:
        """Take the right to start servers in this workspace, so that two launches never take one name or port."""
        self._make_folders()
        return exclusive(self._launches / ".lock", wait_s=600.0)

    def new_key(self, name: str, key: str = "") -> tuple[str, Path]:
        """Keep a server's key, by default a random one for a launch; return it and the private file that holds it."""
        self._make_folders()
        key = read_key(key or secrets.token_urlsafe(24), "`key`")
        path = self.folder / f"{name}.key"
        write_atomic(path, key + "\n", mode=0o600)
        return key, path

    def add(self, record: ServerRecord) -> None:
        """Write down a server that is not verified: starting, failed, or with a certificate that did not pass."""
        self._make_folders()
        write_atomic(self._launches / f"{record.name}.json", record.model_dump_json(indent=1), mode=0o600)

    def certify(self, record: ServerRecord) -> None:
        """Keep a server where its certificate says: among the verified ones, or back among the others.

        A NotReadyError is raised when the launch was stopped or replaced meanwhile.
        """
        self.require(record)
        files = [self.folder / f"{record.name}.json", self.launch_file(record.name, "json")]
        passed = record.certificate is not None and record.certificate.passed
        right, wrong = files if passed else reversed(files)
        write_atomic(right, record.model_dump_json(indent=1), mode=0o600)
        wrong.unlink(missing_ok=True)

    def remove(self, record: ServerRecord) -> None:
        """Forget a server and its key; nothing happens when a newer launch has its name."""
        if self.current(record) is None:
            return
        files = [self.launch_file(record.name, suffix) for suffix in _LAUNCH_FILES]
        for file in (self.folder / f"{record.name}.key", *files, self.folder / f"{record.name}.json"):
            file.unlink(missing_ok=True)

    @contextmanager
    def marked(self, record: ServerRecord, activity: str) -> Iterator[Callable[[str], None]]:
        """Leave a note, for as long as the block runs, that this process is `verifying` or `stopping` the server.

        Yields what adds to the note what is waited for.
        """
        me = this_process()
        self._make_folders()
        where = socket.gethostname()
        whose = {"pid": me.pid, "started_at": me.started_at, "host": where}

        def say(waits_for: str) -> None:
            self._write_note(record, "doing", what=activity, waits_for=waits_for, **whose)

        say("")
        try:
            yield say
        finally:
            self.launch_file(record.name, "doing").unlink(missing_ok=True)

    def activity(self, record: ServerRecord) -> str:
        """Return what a living process is doing to the server: `verifying`, `stopping`, or empty.

        A process of another host counts as gone.
        """
        note = self._note(record, "doing", "what", "pid", "started_at", "host")
        here = note.get("host") == socket.gethostname()
        return str(note["what"]) if here and process_alive(note["pid"], note["started_at"]) else ""

    def waits_for(self, record: ServerRecord) -> str:
        """Return what the checks of a server that is being verified wait for, as its note says."""
        return str(self._note(record, "doing", "waits_for").get("waits_for", ""))

    def write_exit(self, record: ServerRecord, code: int) -> None:
        """Write down a server's exit status, unless its record is gone by now."""
        if self.current(record) is not None:
            self._write_note(record, "exit", code=code)

    def exit_code(self, record: ServerRecord) -> int | None:
        """Return the exit status (negative: the signal), if it was written down."""
        note = self._note(record, "exit", "code")
        return int(note["code"]) if note else None

    def write_warm(self, record: ServerRecord) -> None:
        """Write down that this launch has answered a run."""
        self._write_note(record, "warm", at=time.time())

    def is_warm(self, record: ServerRecord) -> bool:
        """Whether this launch is known to have answered a run; of a server without an alias nobody can know."""
        return bool(record.alias and self._note(record, "warm", "at"))

    def began_at(self, record: ServerRecord) -> float:
        """Return when the start itself began [s since the epoch]: for a job, when it left the queue."""
        return float(self._note(record, "address", *_JOB_NOTE).get("at", record.started_at))

    def neighbours(self, record: ServerRecord) -> Sequence[ServerRecord]:
        """Return the other servers of the same job that have not ended by themselves."""
        if not record.shares_job:
            return []
        return [
            other
            for other in self.list()
            if other.job_id == record.job_id and other.name != record.name and self.exit_code(other) is None
        ]

    def launch_file(self, name: str, suffix: str) -> Path:
        """Return one of the files of a launch; see the table above."""
        return self._launches / f"{name}.{suffix}"

    def _make_folders(self) -> None:
        ensure_folder(self.workspace)
        ensure_folder(self.folder, mode=0o700).chmod(0o700)
        ensure_folder(self._launches, mode=0o700)

    def _read(self, path: Path) -> ServerRecord | None:
        try:
            record = ServerRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OldWorkspaceError as error:
            raise OldWorkspaceError(error.problem, evidence=str(path), next_step=error.next_step) from None
        except (OSError, ValidationError) as error:
            raise RecordError(
                f"The server record {path} cannot be read.",
                evidence=str(error)[:500],
                next_step="Look at the file; if it is damaged, end the server by its pid and delete the record.",
            ) from error
        return self._with_job_note(record) if record.job_id or not record.base_url else record

    def _with_job_note(self, record: ServerRecord) -> ServerRecord:
        """Return a job's record with the address that its job wrote down; unchanged when it has not begun yet.

        A job may come back on another node or port: an older certificate counts no more.
        """
        note = self._note(record, "address", *_JOB_NOTE)
        if not note:
            return record
        began_at, old = float(note.pop("at")), record.certificate
        if old is not None and (old.issued_at < began_at or old.base_url != note["base_url"]):
            old = None
        return record.model_copy(update={**note, "certificate": old})

    def _write_note(self, record: ServerRecord, suffix: str, **note: Any) -> None:
        text = json.dumps(note | {"alias": record.alias})
        write_atomic(self.launch_file(record.name, suffix), text, mode=0o600)

    def _note(self, record: ServerRecord, suffix: str, *names: str) -> dict[str, Any]:
        """Return these entries of a note that belongs to this very launch; nothing when one is missing."""
        try:
            note = json.loads(self.launch_file(record.name, suffix).read_bytes())
            return {name: note[name] for name in names} if note["alias"] == record.alias else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def processes_of(record: ServerRecord) -> list[int]:
    """Return the pids of a server's process group on this machine, workers included; none of one on another host."""
    return group_members(*record.process) if record.process and record.on_this_host else []
