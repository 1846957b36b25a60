"""Where a job's server answers: the note that the job itself leaves when it starts on its node."""

from __future__ import annotations

import difflib
import json
import re
import secrets
import socket
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tautools.errors import OldWorkspaceError, ParamsError, RecordError, ServerError
from tautools.files import ensure_folder, exclusive, write_atomic
from tautools.records import ServerRecord
from tautools.shell import process_alive, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_JOB_NOTE_FIELDS = ("job_id", "host", "base_url", "log_out", "log_err")


def with_job_address(record: ServerRecord, launches: Path) -> ServerRecord:
    """Return the record of a job's server with what its job has told; unchanged when it has not begun yet.

    A job may come back on another node or port: a certificate from before that proves nothing any more.
    """
    if record.backend != "slurm":
        return record
    try:
        note = json.loads((launches / f"{record.name}.address").read_text())
        told = {field: str(note[field]) for field in _JOB_NOTE_FIELDS}
        alias, began_at = note["alias"], float(note["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return record
    if alias != record.alias:
        return record
    old = record.certificate
    if old is not None and (old.issued_at < began_at or old.base_url != told["base_url"]):
        old = None
    return record.model_copy(update={**told, "certificate": old})


_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return `name` when files and log lines can carry it.

    Raises
    ------
    ParamsError
        When it holds anything but letters, digits, dot, dash and underscore, or is too long.
    """
    if not _SERVER_NAME.fullmatch(name):
        raise ParamsError(
            f"{name!r} cannot be the name of a server.",
            next_step="Use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    return name


@dataclass(frozen=True, slots=True)
class Activity:
    """Something a process is doing to a server: `verifying` or `stopping`."""

    what: str
    alias: str
    pid: int
    started_at: float
    host: str

    @property
    def current(self) -> bool:
        """Whether the process that does it still runs. Of another host's process nothing is known: no."""
        return self.host == socket.gethostname() and process_alive(self.pid, self.started_at)


class Registry:
    """The servers of one workspace.

    Parameters
    ----------
    workspace : Path
        The folder whose `servers/` holds the records. Reading makes nothing.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = Path(workspace)
        self.folder = self.workspace / "servers"
        self._launches = self.folder / "launches"

    def list(self) -> list[ServerRecord]:
        """Return every known server by name, proven or not; a file that cannot be read is left out."""
        found = {record.name: record for record in self._read_folder(self._launches)}
        found |= {record.name: record for record in self._read_folder(self.folder)}
        return [found[name] for name in sorted(found)]

    def get(self, name: str) -> ServerRecord:
        """Return the record of one server.

        Raises
        ------
        ServerError
            When no server of that name is known; the message names the nearest.
        RecordError
            When its file cannot be read.
        """
        record = self.find(name)
        if record is not None:
            return record
        names = [known.name for known in self.list()]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise ServerError(
            f"No server named {name!r} is registered in {self.folder}.",
            evidence=f"Registered: {', '.join(near or names)}." if names else "No server is registered there.",
            next_step=f"Start it with `tautools server up {name}`, or look with `tautools server ls`.",
        )

    def find(self, name: str) -> ServerRecord | None:
        """Return the record of one server, or None."""
        check_name(name)
        record = _read_record(self.folder / f"{name}.json") or _read_record(self._launches / f"{name}.json")
        return with_job_address(record, self._launches) if record is not None else None

    def key(self, record: ServerRecord) -> str:
        """Return the server's key; empty when it has none.

        Raises
        ------
        ServerError
            When the key's file is gone.
        """
        if not record.key_file:
            return ""
        try:
            return Path(record.key_file).read_text().strip()
        except OSError as error:
            raise ServerError(
                f"The key of server {record.name!r} cannot be read.",
                evidence=str(error),
                next_step=f"Stop it with `tautools server stop {record.name}` and start it again.",
            ) from error

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the right to start servers in this workspace, so that two launches never take one name or port."""
        self._make_folders()
        with exclusive(self._launches / ".lock"):
            yield

    def new_key(self, name: str) -> tuple[str, Path]:
        """Make a random key for a launch; return it and the private file that holds it."""
        self._make_folders()
        key, path = secrets.token_urlsafe(24), self.folder / f"{name}.key"
        write_atomic(path, key + "\n", mode=0o600)
        return key, path

    def add(self, record: ServerRecord) -> None:
        """Write down a server that is not proven: starting, failed, or with a certificate that was not passed."""
        self._make_folders()
        write_atomic(self._launches / f"{record.name}.json", record.model_dump_json(indent=1), mode=0o600)

    def mark_verified(self, record: ServerRecord) -> None:
        """Write down a proven server.

        Raises
        ------
        ServerError
            When the record has no certificate that was passed, or is not of the launch that is registered.
        """
        if record.certificate is None or not record.certificate.passed or not self.is_current(record):
            raise ServerError(
                f"Server {record.name!r} is not proven to be this launch.",
                next_step=f"Run `tautools server verify {record.name}`.",
            )
        write_atomic(self.folder / f"{record.name}.json", record.model_dump_json(indent=1), mode=0o600)
        self._launch_file(record.name, "json").unlink(missing_ok=True)

    def revoke(self, record: ServerRecord) -> None:
        """Move a server that failed the ladder back among those that are not proven."""
        if self.is_current(record):
            self.add(record)
            (self.folder / f"{record.name}.json").unlink(missing_ok=True)

    def take_over(self, old: ServerRecord, heir: ServerRecord) -> ServerRecord:
        """Give a proven server the name of another one, with its key; return its new record.

        Raises
        ------
        ServerError
            When the heir is not proven.
        """
        certificate = heir.certificate and heir.certificate.model_copy(update={"server": old.name})
        if certificate is None or not certificate.passed or not self.is_current(heir):
            raise ServerError(
                f"Server {heir.name!r} is not proven, so it cannot take over {old.name!r}.",
                next_step=f"Run `tautools server verify {heir.name}`.",
            )
        # A key file of its own, so that one replaced file, the record, turns the name over as a whole.
        key = self.folder.resolve() / f"{old.name}.{heir.alias}.key"
        write_atomic(key, self.key(heir) + "\n", mode=0o600)
        record = heir.model_copy(update={"name": old.name, "key_file": str(key), "certificate": certificate})
        write_atomic(self.folder / f"{old.name}.json", record.model_dump_json(indent=1), mode=0o600)
        self._forget(old)
        self.remove(heir)
        return record

    def remove(self, record: ServerRecord) -> None:
        """Forget a server and its key; nothing happens when a newer launch has its name."""
        if not self.is_current(record):
            return
        self._forget(record)
        (self.folder / f"{record.name}.json").unlink(missing_ok=True)

    def is_current(self, record: ServerRecord) -> bool:
        """Whether the registered server of that name is this very launch."""
        known = self.find(record.name)
        if known is None or known.alias != record.alias:
            return False
        # An alias belongs to one launch; the address of a job's server is known only when the job has begun.
        return bool(record.alias) or known.base_url == record.base_url

    def begin(self, record: ServerRecord, what: str) -> None:
        """Leave a note that this process is verifying or stopping the server."""
        me = this_process()
        doing = Activity(what, record.alias, me.pid, me.started_at, socket.gethostname())
        self._make_folders()
        write_atomic(self._launch_file(record.name, "doing"), json.dumps(asdict(doing)), mode=0o600)

    def end(self, record: ServerRecord) -> None:
        """Take back the note of `begin`."""
        self._launch_file(record.name, "doing").unlink(missing_ok=True)

    def doing(self, record: ServerRecord) -> Activity | None:
        """Return what a living process is doing to the server, if anything."""
        try:
            doing = Activity(**json.loads(self._launch_file(record.name, "doing").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return doing if doing.alias == record.alias and doing.current else None

    def write_exit(self, name: str, alias: str, code: int) -> None:
        """Write down a server's exit status, unless its record is gone by now."""
        known = self.find(name)
        if known is not None and known.alias == alias:
            text = json.dumps({"alias": alias, "code": code})
            write_atomic(self._launch_file(name, "exit"), text, mode=0o600)

    def exit_code(self, record: ServerRecord) -> int | None:
        """Return the exit status (negative: the signal) when somebody lived to see it."""
        try:
            seen = json.loads(self._launch_file(record.name, "exit").read_text())
        except (OSError, ValueError):
            return None
        return int(seen["code"]) if seen.get("alias") == record.alias else None

    def script_file(self, name: str) -> Path:
        """Return where the job script of a server on Slurm lies."""
        return self._launch_file(name, "sbatch")

    def address_file(self, name: str) -> Path:
        """Return where the job of a server says that it answers, and when it began."""
        return self._launch_file(name, "address")

    def stop_note(self, name: str) -> Path:
        """Return where the job of several servers is asked to end this one."""
        return self._launch_file(name, "stop")

    def neighbours(self, record: ServerRecord) -> Sequence[ServerRecord]:
        """Return the other servers of the same job that have not ended by themselves."""
        if not record.shares_job:
            return []
        return [
            other
            for other in self.list()
            if other.job_id == record.job_id and other.name != record.name and self.exit_code(other) is None
        ]

    def _forget(self, record: ServerRecord) -> None:
        """Remove everything of a launch but the record of a proven server."""
        (self.folder / f"{record.name}.key").unlink(missing_ok=True)
        if record.key_file and Path(record.key_file).parent == self.folder.resolve():
            Path(record.key_file).unlink(missing_ok=True)
        for suffix in ("address", "sbatch", "exit", "doing", "stop", "json"):
            self._launch_file(record.name, suffix).unlink(missing_ok=True)

    def _launch_file(self, name: str, suffix: str) -> Path:
        return self._launches / f"{name}.{suffix}"

    def _make_folders(self) -> None:
        ensure_folder(self.workspace)
        ensure_folder(self.folder, mode=0o700).chmod(0o700)
        ensure_folder(self._launches, mode=0o700)

    def _read_folder(self, folder: Path) -> Iterator[ServerRecord]:
        for path in sorted(folder.glob("*.json")):
            try:
                record = _read_record(path)
            except RecordError:
                continue
            if record is not None:
                yield with_job_address(record, self._launches)


def _read_record(path: Path) -> ServerRecord | None:
    try:
        return ServerRecord.model_validate_json(path.read_bytes())
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
