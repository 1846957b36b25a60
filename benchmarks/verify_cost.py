"""Seconds from the moment a server answers by itself to its certificate: what the proof adds to a start.

The moment is taken by a watcher of its own, which asks `/health` every 10 ms; the certificate is there when
`wait_ready` returns. Without a real vLLM the stand-in of the tests is measured, whose answers take no time: what is
left is our own cost. With `--vllm COMMAND` (or TAUTOOLS_TEST_VLLM) a real one serves a tiny random model on the CPU.

A grammar is built by vLLM for its first forced call, and that alone takes it a second or more; `--strict` has it build
one for calls that the model may choose, too, as the tests do for their random model.

Run `python benchmarks/verify_cost.py [--vllm COMMAND] [--starts N] [--json]`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
sys.path.insert(0, str(SUPPORT))
BUDGET_S = 2.0


def stand_in() -> dict[str, Any]:
    command = [sys.executable, str(SUPPORT / "fake_vllm.py")]
    return {"model": "org/Some-4B", "serve_command": command, "vllm": {"tool_call_parser": "hermes"}}


def real(vllm: str, folder: Path, *, strict: bool) -> dict[str, Any]:
    model = folder / "tiny"
    python = Path(vllm).with_name("python")
    words = [python, SUPPORT / "make_tiny_model.py", model, "--first", "<tool_call>=0.6"]
    subprocess.run(words, check=True, capture_output=True)
    level = {"tool_strict_level": "parameter"} if strict else {}
    whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": 65536}  # else a seed ends vLLM on the CPU
    options = {
        "max_model_len": 65536,
        "tool_call_parser": "hermes",
        "enforce_eager": True,
        "dtype": "float32",
        "args": {"block_size": 32, "kv_cache_memory_bytes": 67108864, **whole, **level},
    }
    small = {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"}
    return {"model": str(model), "serve_command": [vllm, "serve"], "env": small, "vllm": options}


def watch(base_url: str, found: list[float], ended: threading.Event) -> None:
    """Note the moment at which `/health` first says 200."""
    address = urlsplit(base_url)
    while not ended.is_set():
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=1.0)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                found.append(time.perf_counter())
                return
        except OSError:
            time.sleep(0.01)
        finally:
            connection.close()


def measure(params: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Start one server, wait for its certificate, stop it, and return the times [s]."""
    from tautools.errors import VerifyError
    from tautools.params.models import ServerParams
    from tautools.servers import launch

    found: list[float] = []
    ended = threading.Event()
    server = launch(ServerParams.model_validate({"name": "measured", **params}), workspace=folder)
    watcher = threading.Thread(target=watch, args=(server.record.base_url, found, ended))
    watcher.start()
    failure = ""
    try:
        server.wait_ready()
    except VerifyError as error:
        failure = f"{error.problem} {error.evidence}"
    finally:
        done = time.perf_counter()
        ended.set()
        watcher.join()
        certificate = server.record.certificate
        server.stop()
    checks = {f"{check.number} {check.name}": check.took_s for check in certificate.checks} if certificate else {}
    return {"verify_s": round(done - found[0], 3), "checks_s": checks, "failure": failure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", default=os.environ.get("TAUTOOLS_TEST_VLLM"), help="the command of a real vLLM")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--strict", action="store_true", help="real vLLM: hold every call to its schema")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = real(options.vllm, folder, strict=options.strict) if options.vllm else stand_in()
        rows = [measure(params, folder / "workspace") for _ in range(options.starts)]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print("a real vLLM on the CPU, a tiny random model" if options.vllm else "the stand-in for vLLM of the tests")
    for row in rows:
        print(f"from answering to the certificate: {row['verify_s']:6.2f} s  {row['failure']}")
        print("  " + ", ".join(f"{check} {took_s:.2f}" for check, took_s in row["checks_s"].items()))
    middle = statistics.median(row["verify_s"] for row in rows)
    print(f"median {middle:.2f} s; budget {BUDGET_S:g} s: {'kept' if middle <= BUDGET_S else 'MISSED'}")


if __name__ == "__main__":
    main()
