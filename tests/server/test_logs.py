"""Logs are read on from where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving import fake_vllm

from tautools.server import launch
from tautools.server.logs import LogReader, follow

if TYPE_CHECKING:
    from pathlib import Path


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

    lines = list(follow(server.record, workspace=workspace, poll_s=0.05))

    assert lines[-1] == "INFO:     Application startup complete."
    assert not any(line.startswith("Server base:") for line in lines)
