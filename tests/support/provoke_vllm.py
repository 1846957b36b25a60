"""Make a real `vllm serve` fail in many ways for the price of one import: each case is a fork of one loaded process.

    PYTHON_OF_VLLM provoke_vllm.py < cases.json > exits.json

A case is `{"row": NAME, "argv": [...], "env": {...}, "log": PATH}`; the answer maps each row to its exit status.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from typing import Any

MOST_S = 240


def main() -> None:
    # Loaded before the forks, so that each has it already.
    import vllm.entrypoints.cli.serve
    import vllm.entrypoints.openai.api_server
    from vllm.entrypoints.cli.main import main as vllm

    exits = {case["row"]: provoked(case, vllm) for case in json.load(sys.stdin)}
    print(json.dumps(exits))


def provoked(case: dict[str, Any], vllm: Any) -> int:
    pid = os.fork()
    if pid == 0:
        serve(case, vllm)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def serve(case: dict[str, Any], vllm: Any) -> None:
    """Be `vllm serve` in a group of its own, and never return."""
    os.setsid()
    signal.alarm(MOST_S)
    log = os.open(case["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(case.get("env", {}))
    sys.argv = ["vllm", "serve", *case["argv"]]
    status = 1
    try:
        vllm()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


# An engine is spawned, which loads this file once more under another name.
if __name__ == "__main__":
    main()
