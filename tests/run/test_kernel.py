"""An interrupt in a real Jupyter kernel: the run stops in good order, the kernel lives on."""

from __future__ import annotations

import time

import pytest
from jupyter_client.manager import KernelManager
from scripted_server import Say
from served_cells import STOP, scripted_cell

from tautools.run import prepare_cell, read_ledger

RUN = """
from pathlib import Path
from tautools.params.models import RunParams
from tautools.run import run_cell
kept = 42
result = run_cell(RunParams.model_validate_json({run!r}), workspace=Path({workspace!r}))
print(result)
"""


@pytest.fixture
def kernel(monkeypatch):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def executed(client, code, timeout=60):
    said = []
    reply = client.execute_interactive(
        code,
        timeout=timeout,
        output_hook=lambda message: said.append(message["content"].get("text", "")),
    )
    return reply["content"]["status"], "".join(said)


def reply_to(client, message):
    """Return the kernel's answer to one request; answers to earlier ones may still be on their way."""
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"]["msg_id"] == message:
            return reply


def test_an_interrupt_stops_the_run_keeps_what_is_finished_and_leaves_the_kernel_alive(tmp_path, kernel):
    manager, client = kernel

    def user(request):
        if len(server.requests) <= 3:
            return f"Bye. {STOP}"
        return Say("never said", first_s=600)

    with scripted_cell(user, limit=6, concurrency=1, grace_s=0.2) as (server, run):
        message = client.execute(RUN.format(run=run.model_dump_json(), workspace=str(tmp_path)))
        while len(server.requests) < 4:
            time.sleep(0.05)
        manager.interrupt_kernel()
        reply = reply_to(client, message)
        assert reply["content"]["status"] == "ok", "run_cell returned a result, it did not raise"
        status, said = executed(client, "print(kept, result.interrupted, result.done, result.pending)")
        assert (status, said.strip()) == ("ok", "42 True 3 3")
        folder = prepare_cell(run, workspace=tmp_path).folder
    assert len(read_ledger(folder)) == 3

    status, _ = executed(client, "import signal; assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL")
    assert status == "ok"
    message = client.execute("import time; time.sleep(60)")
    time.sleep(0.5)
    manager.interrupt_kernel()
    reply = reply_to(client, message)
    assert reply["content"]["ename"] == "KeyboardInterrupt", "later cells are interrupted as ever"
