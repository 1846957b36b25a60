"""Servers for tests: quick simulated ones and a stand-in for vLLM, as real processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.params.models import ServerParams
from tautools.shell import group_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.servers import Server

FAKE_VLLM = Path(__file__).with_name("fake_vllm.py")


def simulated(name: str = "sim", **fields: Any) -> ServerParams:
    """Return a simulated server that answers at once."""
    simulate = {"speed": 0, "skill": 1.0} | fields.pop("simulate", {})
    return ServerParams.model_validate(
        {"name": name, "engine": "simulate", "model": f"{name}-model", "simulate": simulate} | fields
    )


def fake_vllm(name: str = "fake", modes: str = "", *, tools: bool = True, **fields: Any) -> ServerParams:
    """Return a server whose engine is the stand-in for vLLM, in the given modes."""
    env = {"FAKE_VLLM": modes} | fields.pop("env", {})
    vllm = {"max_model_len": 4096} | ({"tool_call_parser": "hermes"} if tools else {}) | fields.pop("vllm", {})
    command = [sys.executable, str(FAKE_VLLM)]
    return ServerParams.model_validate(
        {"name": name, "model": "org/Some-4B", "serve_command": command, "env": env, "vllm": vllm} | fields
    )


def wait_for(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; fail after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def members(server: Server) -> list[int]:
    """Return the processes of a server that still run."""
    assert server.record.pid is not None
    assert server.record.pid_started_at is not None
    return group_members(server.record.pid, server.record.pid_started_at)
