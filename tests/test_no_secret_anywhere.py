"""No key is seen anywhere but in its own file: not on a command line, in a log, a record, a notebook, a traceback.

One test goes the whole way with real processes: servers, a sweep with its notebooks, doctor. While it does,
the command line of every process of the machine is read again and again.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import Typed, typed
from serving import fake_vllm, simulated
from small_sweep import small_sweep

from tautools.errors import TautoolsError
from tautools.params.models import RoleParams
from tautools.servers import Registry, endpoints, launch, open_server, verify_target
from tautools.servers.checks.target import CheckTarget

HOSTED = {
    "OPENAI_API_KEY": "sk-planted-openai-7d1f0c",
    "ANTHROPIC_API_KEY": "sk-planted-anthropic-51ab",
    "HF_TOKEN": "hf_plantedPlantedPlanted99",
}


@contextmanager
def watched_command_lines() -> Iterator[set[str]]:
    """Collect the words of every process's command line, as any user of the machine could."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _holders(folder: Path, secrets: set[str]) -> dict[str, str]:
    """Return the files below `folder` that hold a secret, but for those that are made to hold a key."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".key":
            data = path.read_bytes()
            found |= {str(path.relative_to(folder)): each for each in secrets if each.encode() in data}
    return found


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A workspace whose servers are gone when the test ends, however it ends."""
    folder = tmp_path / "ws"
    folder.mkdir()
    yield folder
    for record in Registry(folder).list():
        open_server(record.name, workspace=folder).stop(term_s=1)


@pytest.mark.slow
def test_a_whole_day_of_work_shows_no_key_anywhere(workspace: Path) -> None:
    small_sweep(workspace)
    place = ("--workspace", str(workspace))
    told: list[Typed] = []
    with watched_command_lines() as lines:
        told.append(typed("server", "up", "quick", "customer", "--idle-stop", "60", *place, env=HOSTED))
        keys = {Registry(workspace).key(record) for record in Registry(workspace).list()}
        steps = [
            ("sweep", "run", "small"),
            ("server", "ls", "--json"),
            ("server", "top", "--once", "--json", "--every", "0.2"),
            ("server", "export", "--user", "customer", "--agent", "quick"),
            ("server", "verify", "quick", "--json"),
            ("server", "logs", "quick"),
            ("doctor",),
            ("doctor", "--paste"),
        ]
        told += [typed(*step, *place, env=HOSTED) for step in steps]
        told.append(typed("server", "stop", "--all", *place, env=HOSTED))

    assert [each.code for each in told] == [0] * len(told), told
    secrets = keys | set(HOSTED.values())
    assert len(keys) == 2
    assert any("tautools simulate" in line for line in lines)
    assert [line for line in lines if any(each in line for each in secrets)] == []
    assert [each for each in told if any(secret in each.out + each.err for secret in secrets)] == []
    assert list(workspace.rglob("runs/**/*.ipynb"))
    assert list(workspace.rglob("events/*.jsonl"))
    assert _holders(workspace, secrets) == {}
    assert list(workspace.rglob("*.key")) == []


@pytest.mark.parametrize("modes", ["dies", "empty", "open", "no_seeds"])
def test_no_error_of_a_start_shows_the_key_and_neither_does_its_traceback(tmp_path: Path, modes: str) -> None:
    server = launch(fake_vllm(modes=modes), workspace=tmp_path)
    key = Registry(tmp_path).key(server.record)
    try:
        with pytest.raises(TautoolsError) as failed:
            server.wait_ready()
        shown = "".join(traceback.format_exception(failed.value)) + repr(failed.value) + str(server.state())
    finally:
        server.stop(term_s=1)

    assert len(key) > 20
    assert key not in shown
    assert _holders(tmp_path, {key}) == {}


def test_a_key_that_is_refused_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "wrong-key-of-a-person-1234"
    monkeypatch.setenv("MY_KEY", wrong)
    server = launch(simulated(), workspace=tmp_path).wait_ready()
    try:
        role = RoleParams(model=server.record.model, base_url=server.record.base_url, api_key_env="MY_KEY")
        with pytest.raises(TautoolsError) as refused:
            endpoints(role, workspace=tmp_path, role_name="agent")
        certificate = verify_target(CheckTarget(server.record.base_url, key=wrong))
    finally:
        server.stop()

    shown = "".join(traceback.format_exception(refused.value)) + repr(refused.value.__dict__)
    assert wrong not in shown + certificate.model_dump_json()
    assert not certificate.passed
