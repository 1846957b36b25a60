"""All access to the disk: whole files by atomic replacement, lines by appending.

Whole files are written to a temporary name in the same folder, synced, and moved into place, so a reader sees the old
file or the new one. Lines go to a file of the writer's own, never reopened; a reader takes a torn last line, and NUL
bytes that a crashed file system leaves behind, as never written. A lock is a file that only one process can create:
shared disks (Lustre, some NFS) have no `flock`.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from tautools.errors import FilesError


def expand_home(text: str) -> Path:
    """Return the path that a person wrote, `~` replaced; the `~name` of no user stays as it is."""
    # pathlib raises for such a name, and takes `./~name` for `~name`.
    return Path(os.path.expanduser(text))  # noqa: PTH111


def ensure_folder(path: Path, *, mode: int = 0o777) -> Path:
    """Make `path` with its parents and return it.

    Raises
    ------
    FilesError
        When the folder cannot be made or is not one that this user can write to.
    """
    choose = "Choose a workspace you can write to with --workspace, or make the folder yourself."
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise FilesError(f"The folder {path} cannot be made.", evidence=str(error), next_step=choose) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise FilesError(f"The folder {path} cannot be written to.", next_step=choose)
    return path


def packaged_text(package: str, name: str) -> str:
    """Return the text of the file `name` that is part of a package, which is given by its dotted name."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def packaged_yaml(package: str, name: str) -> Any:
    """Return the content of a YAML file that is part of a package; see `packaged_text`."""
    import yaml

    return yaml.load(packaged_text(package, name), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - the safe one, in C


def write_atomic(path: Path, data: bytes | str, *, mode: int | None = None) -> None:
    """Replace `path`, whose folder exists, by `data`, so that no reader ever sees a part of it.

    Text is written as UTF-8, half a character as `?`. The permission bits, such as `mode=0o600`, are set before
    anything is written.

    Raises
    ------
    FilesError
        When the file cannot be written.
    """
    raw = data.encode(errors="replace") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> FilesError:
    return FilesError(
        f"The file {path} cannot be written.",
        evidence=str(error),
        next_step="Check free space, quota and permissions of the folder.",
    )


def write_new(path: Path, data: bytes | str) -> bool:
    """Write a file that does not exist yet; return False, and change nothing, when it does.

    Raises
    ------
    FilesError
        When the file cannot be written.
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        with path.open("xb") as file:
            file.write(raw)
    except FileExistsError:
        return False
    except OSError as error:
        raise _not_written(path, error) from error
    return True


def why_not_writable(folder: Path) -> str:
    """Return why nothing can be written in `folder`; empty when it can, which is tried with a file that has no name."""
    import tempfile  # a tenth of what importing tautools costs, and seldom needed

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"tautools")
            file.flush()
    except OSError as error:
        return str(error)
    return ""


class LineWriter:
    """Appends lines to a new file of its own; a write that comes out short seals the file for good.

    Parameters
    ----------
    path : Path
        A file that must not exist yet: a writer's file is never reopened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._sealed = False
        try:
            self._file: IO[bytes] = path.open("xb", buffering=0)
        except OSError as error:
            raise _not_written(path, error) from error

    def append(self, line: bytes, *, sync: bool = False) -> tuple[int, int]:
        """Write one line; return its offset and its length without the newline [bytes].

        Raises
        ------
        FilesError
            When the disk did not take the whole line; the file is sealed then and takes no more.
        """
        if self._sealed:
            raise self._error("was sealed after a short write")
        data = line + b"\n"
        self._sealed = True  # until the whole line is there
        try:
            written = self._file.write(data)
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._error("could not be written", str(error)) from error
        if written != len(data):
            raise self._error(f"took {written} of {len(data)} bytes")
        self._sealed = False
        start, self.offset = self.offset, self.offset + written
        return start, len(line)

    def _error(self, problem: str, evidence: str = "") -> FilesError:
        return FilesError(
            f"{self.path} {problem}.", evidence=evidence, next_step="Free space on the disk, then run again."
        )

    def close(self) -> None:
        """Close the file; it is never opened for writing again."""
        self._file.close()


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of `path`; a torn last line and lines with NUL bytes count as never written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n")[:-1]:
        if line and b"\0" not in line:
            yield line


def read_span(path: Path, offset: int, length: int) -> bytes:
    """Return `length` bytes of `path` from `offset`; fewer when the file is shorter."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def tail(path: Path, lines: int = 200) -> list[str]:
    """Return the last `lines` lines of a text file, reading at most 256 KiB of it; [] when it is not there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 262_144))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float = 120.0, stale_s: float = 30.0) -> Iterator[None]:
    """Let one process at a time into the block, on any disk: who creates the lock file has the lock.

    Another holder is waited for `wait_s` seconds. A lock is free when its holder's process is gone (same host), or has
    not touched the file for `stale_s`. The file is removed afterwards.

    Raises
    ------
    FilesError
        When another process still holds the lock after `wait_s`, or the file cannot be made.
    """
    from tautools.shell import this_process

    me = this_process()
    host = socket.gethostname()
    owner = {"host": host, "pid": me.pid, "started_at": me.started_at, "token": secrets.token_hex(8)}
    text = json.dumps(owner)
    deadline = time.monotonic() + wait_s
    seen, since = "", time.monotonic()
    while not write_new(path, text):
        look = _lock_state(path)
        if look != seen:
            seen, since = look, time.monotonic()
        if seen and (_holder_is_gone(seen, host) or time.monotonic() - since > stale_s):
            _break_lock(path, seen)
        if time.monotonic() > deadline:
            raise FilesError(
                f"{path} has been locked by another process for more than {wait_s:g} s.",
                evidence=seen.partition("\n")[2],
                next_step=f"If that process is gone, remove the file: `rm {path}`.",
            )
        time.sleep(0.02)
    done = threading.Event()
    threading.Thread(target=_keep_fresh, args=(path, done, stale_s / 4), name="lock", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        if _lock_state(path).partition("\n")[2] == text:
            path.unlink(missing_ok=True)


def _lock_state(path: Path) -> str:
    """Return when a lock was touched and, in a second line, what its holder wrote; empty when it is not there."""
    try:
        return f"{path.stat().st_mtime_ns}\n{path.read_text(encoding='utf-8')}"
    except OSError:
        return ""


def _holder_is_gone(state: str, host: str) -> bool:
    from tautools.shell import process_alive

    try:
        owner = json.loads(state.partition("\n")[2])
        return owner["host"] == host and not process_alive(int(owner["pid"]), float(owner["started_at"]))
    except (ValueError, KeyError, TypeError):
        return False  # it is being written at this moment, or is not ours to judge: time decides


def _break_lock(path: Path, seen: str) -> None:
    """Take an abandoned lock away; if it was another one by then, put that one back."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.gone")
    with contextlib.suppress(OSError):
        path.rename(aside)
        if _lock_state(aside).partition("\n")[2] != seen.partition("\n")[2]:
            os.link(aside, path)
        aside.unlink()


def _keep_fresh(path: Path, done: threading.Event, every_s: float) -> None:
    while not done.wait(every_s):
        with contextlib.suppress(OSError):
            os.utime(path)
