"""Logs are read on from where they were."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from serving import fake_vllm, simulated, wait_for

from tautools.servers import launch
from tautools.servers.state import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.servers import Server


def test_each_line_is_read_once_and_a_torn_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path)
    assert reader.new_lines() == []

    with path.open("ab", buffering=0) as log:
        log.write("one\ntwö".encode()[:-1])
        assert reader.new_lines() == ["one"]
        log.write("twö".encode()[-1:] + b"\n\nthree 10%\rthree 90%\n")
        assert reader.new_lines() == ["twö", "three 10%", "three 90%"]
        assert reader.new_lines() == []


def test_a_log_is_followed_from_now_until_the_server_ends(workspace: Path) -> None:
    server = launch(fake_vllm(modes="ready_then_dies", env={"FAKE_VLLM_LOAD_S": "0.5"}), workspace=workspace)

    lines = list(server.follow(poll_s=0.05))

    assert lines[-1] == "INFO:     Application startup complete."
    assert not any(line.startswith("Server base:") for line in lines)


def test_a_log_is_followed_from_the_last_lines_with_none_lost_or_read_twice(workspace: Path) -> None:
    server = launch(fake_vllm(modes="ready_then_dies", env={"FAKE_VLLM_LOAD_S": "1"}), workspace=workspace)
    record = server.record
    wait_for(lambda: Path(record.log_out).read_text().count("\n") > 5)

    lines = list(server.follow(lines=3, poll_s=0.05))

    whole = Path(record.log_out).read_text().splitlines()
    out = [line for line in lines if line in whole]
    assert out == whole[-len(out) :]
    assert len(set(out)) == len(out) >= 3
    assert list(server.follow(lines=2)) == [
        *whole[-2:],
        *Path(record.log_err).read_text().splitlines()[-2:],
    ]


def test_following_asks_nothing_of_the_address(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    lines: list[str] = []
    with no_requests(server):
        following = threading.Thread(target=lambda: lines.extend(server.follow(lines=100, poll_s=0.05)))
        following.start()
        time.sleep(1)
    server.stop()
    following.join(timeout=20)

    assert not following.is_alive()
    assert any("SIMULATED model server" in line for line in lines)


@contextlib.contextmanager
def no_requests(server: Server) -> Iterator[None]:
    """Fail when somebody connects to the server meanwhile: it is halted, and asks would wait in its queue."""
    assert server.record.pid is not None
    port = int(server.record.base_url.rpartition(":")[2].partition("/")[0])
    process = psutil.Process(server.record.pid)
    process.suspend()
    try:
        yield
        open_now = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
        assert [each for each in open_now if each.raddr and each.raddr.port == port] == []
    finally:
        process.resume()
