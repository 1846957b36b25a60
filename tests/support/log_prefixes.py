"""Prefixes of log lines, as vLLM, Ray, Slurm, docker, Kubernetes and the journal put them, one before another."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

__all__ = ["NESTED", "OUTER", "WRITERS"]

WRITERS = {
    "none": "",
    "0.6": "ERROR 12-01 10:00:00 engine.py:387] ",
    "0.8": "ERROR 12-01 10:00:00 [core.py:708] ",
    "0.9 debug": "ERROR 12-01 10:00:00 [v1/engine/.../core.py:708] ",
    "worker of 0.6": "(VllmWorkerProcess pid=143) ERROR 12-01 10:00:00 multiproc_worker_utils.py:226] ",
    "worker of 0.9": "(VllmWorker rank=1 pid=143) ERROR 12-01 10:00:00 [multiproc_executor.py:487] ",
    "0.11": "(EngineCore_DP0 pid=11) ERROR 12-01 10:00:00 [core.py:708] ",
    "0.32": "(EngineCore pid=11) ERROR 12-01 10:00:00 [core.py:1349] ",
    "year": "(EngineCore pid=11) ERROR 2025-12-01 10:00:00,123 [core.py:708] ",
    "worker in a worker": "(EngineCore_DP0 pid=11) (Worker_TP0_EP0 pid=12) ERROR 12-01 10:00:00 [executor.py:880] ",
    "ray": "(RayWorkerWrapper pid=2593) ERROR 12-01 10:00:00 worker_base.py:464] ",
    "ray elsewhere": "(RayWorkerWrapper pid=11613, ip=11.46.89.2) ERROR 12-01 10:00:00 [worker_base.py:480] ",
    "ray in the engine": "(EngineCore_0 pid=1284) (RayWorkerWrapper pid=11, ip=10.0.0.2) ",
    "engine without a level": "(APIServer pid=10) ",
    "colours": "\x1b[0;36m(EngineCore pid=1)\x1b[0;0m \x1b[31mERROR\x1b[0m \x1b[90m12-01 10:00:00\x1b[0m [core.py:7] ",
    "ray in colours": "\x1b[36m(RayWorkerWrapper pid=2593)\x1b[0m ERROR 12-01 10:00:00 worker_base.py:464] ",
    "colours in words": "#033[0;36m(EngineCore pid=11)#033[0;0m ERROR 12-01 10:00:00 [core.py:708] ",
    "torchrun": "[rank3]: ",
    "torchrun, default": "[default1]:",
    "glog": "[rank0]:[E1201 10:00:00.892191505 ProcessGroupNCCL.cpp:1250] ",
    "uvicorn": "ERROR:    ",
    "logging": "2025-12-01 10:00:00,123 - vllm.engine - ERROR - ",
    "loguru": "2025-12-01 10:00:00.123 | ERROR    | vllm.engine:run:12 - ",
    "log of another launcher": "2025-12-01 11:50:18.715 [Error] ",
    "time with colons": "2025-12-01:14:46:18,784 ERROR     [core.py:279] ",
    "less -R": "ESC[36m(RayWorkerWrapper pid=2593)ESC[0m ERROR 12-01 10:00:00 worker_base.py:464] ",
    "gunicorn": "[2025-12-01 10:00:00 +0000] [123] [ERROR] ",
}
"""Of the program that writes the line; none of them is less than an error."""

OUTER = {
    "none": "",
    "srun": "0: ",
    "srun of many": " 13: ",
    "docker": "2025-12-01T10:00:00.123456789Z ",
    "docker elsewhere": "2025-12-01T10:00:00.123456+02:00 ",
    "compose": "vllm-1  | ",
    "compose, one of a kind": "vllm  | ",
    "ts": "Dec 01 10:00:00 ",
    "time alone": "[10:00:00] ",
    "open mpi": "[gaudi001:3456] ",
    "honcho": "10:00:00 vllm.1 | ",
    "pm2": "0|vllm  | ",
    "kubernetes": "2025-12-01T10:00:00.123456789Z stderr F ",
    "kubectl": "[pod/vllm-7f9c/vllm] ",
    "journal": "Dec 01 10:00:00 gaudi001 vllm[123]: ",
    "journal, early": "Dec  1 10:00:00 gaudi001.cluster python3.11[123]: ",
    "syslog": "Dec  1 10:00:00 gaudi001 vllm: ",
    "journal, exact": "2025-12-01T10:00:00.123456+0000 gaudi001 vllm[123]: ",
    "mpirun": "[1,0]<stderr>:",
    "pdsh": "gaudi001: ",
    "somebody": "host-7 [web] > ",
}
"""Of what carries the line on."""


def _around(*prefixes: str) -> Callable[[str], str]:
    return lambda line: "".join(prefixes) + line


def _docker_file(prefix: str) -> Callable[[str], str]:
    return lambda line: json.dumps({"log": f"{prefix}{line}\n", "stream": "stderr", "time": "2025-12-01T10:00:00Z"})


NESTED = (
    {f"{outer} / {inner}": _around(OUTER[outer], WRITERS[inner]) for outer in OUTER for inner in WRITERS}
    | {
        f"{one} / {two} / {inner}": _around(OUTER[one], OUTER[two], WRITERS[inner])
        for one, two in itertools.permutations([each for each in OUTER if each != "none"], 2)
        for inner in ("none", "0.6", "worker in a worker", "ray in colours")
    }
    | {f"docker's file / {inner}": _docker_file(WRITERS[inner]) for inner in WRITERS}
)
"""Functions that put the prefixes before a line, by name."""
