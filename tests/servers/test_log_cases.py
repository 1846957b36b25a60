"""Whole logs: of failed starts as people have reported them, and of servers that came up."""

from __future__ import annotations

import json
from pathlib import Path

import failure_tables
import pytest
import yaml

from tautools.servers.diagnose import NO_FAILURE, diagnose_log

LOGS = Path(__file__).with_name("logs")
WANTED = yaml.safe_load((LOGS / "wanted.yaml").read_text(encoding="utf-8"))
ENGINE = "(EngineCore_DP0 pid=11) ERROR 01-01 10:00:10 [core.py:708] "
WRAPPER = (
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)
OPENED = "(APIServer pid=1) INFO 01-01 10:00:00 [api_server.py:1] Starting vLLM API server 0 on http://0.0.0.0:8000"
READY = "INFO:     Application startup complete."
CAUSED = "The above exception was the direct cause of the following exception:"
HANDLED = "During handling of the above exception, another exception occurred:"
MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB."


def read(name: str) -> list[str]:
    return (LOGS / name).read_text(encoding="utf-8").splitlines()


def raised(*errors: str) -> list[str]:
    """Return tracebacks of these errors, with the lines between them as they are."""
    frames = ["Traceback (most recent call last):", '  File "/x/core.py", line 709, in run', "    self.start(x)"]
    return [
        line for error in errors for line in ([*frames, error] if error not in {CAUSED, HANDLED} else ["", error, ""])
    ]


@pytest.mark.parametrize("name", WANTED)
def test_a_log_is_told_with_its_line_and_a_remedy(name: str) -> None:
    found = diagnose_log(read(name))

    assert found.id == WANTED[name]["row"]
    assert WANTED[name]["line"] in found.evidence
    assert found.fix.endswith(".")


def test_every_log_of_the_folder_is_wanted() -> None:
    assert {path.name for path in LOGS.glob("*.log") if not path.name.startswith("healthy")} == set(WANTED)


@pytest.mark.parametrize("path", sorted(LOGS.glob("healthy*.log")), ids=lambda path: path.stem)
def test_a_server_that_came_up_shows_no_failure(path: Path) -> None:
    lines = read(path.name)

    assert sum("WARNING" in line for line in lines) > 3
    assert diagnose_log(lines).cause == "The server came up: no failure found."
    for end in range(1, len(lines), 3):  # nor while it starts
        assert diagnose_log(lines[:end]).kind == NO_FAILURE, lines[end - 1]


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        (["OSError: a", CAUSED, "ValueError: b", CAUSED, "RuntimeError: c"], "OSError: a"),
        (["OSError: a", HANDLED, "ValueError: b"], "OSError: a"),
        (["KeyError: 'a'", HANDLED, "ValueError: b", CAUSED, "RuntimeError: c"], "ValueError: b"),
        (["KeyError: 'a'", CAUSED, "ValueError: b"], "KeyError: 'a'"),
        (["OSError: a", CAUSED, "RuntimeError: Engine process failed to start. See stack trace for"], "OSError: a"),
        (["KeyboardInterrupt: terminated", HANDLED, "OSError: a"], "OSError: a"),
        (["a.b.BentError: a", "RuntimeError: later"], "a.b.BentError: a"),
    ],
)
@pytest.mark.parametrize("prefix", ["", ENGINE, "2: "])
def test_of_a_chain_the_exception_that_began_it_is_told(errors: list[str], told: str, prefix: str) -> None:
    found = diagnose_log([*(prefix + line for line in raised(*errors)), WRAPPER])

    assert found.cause == found.evidence == told


def test_the_other_exceptions_of_the_chain_are_shown_too() -> None:
    assert diagnose_log(raised("OSError: a", CAUSED, "ValueError: b")).also == ("ValueError: b",)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a.ValidationError: 1 validation error for Config", "  Value error, bent"], "for Config Value error, bent"),
        (["RuntimeError: Failed to import x because of (look up):", "numpy is bent"], "(look up): numpy is bent"),
        (["ValueError: the card", "is bent", "and cold"], "ValueError: the card is bent and cold"),
        (["AssertionError"], "AssertionError at `self.start(x)`"),
    ],
)
@pytest.mark.parametrize("prefix", ["", ENGINE])
def test_an_exception_of_several_lines_is_told_whole(lines: list[str], told: str, prefix: str) -> None:
    found = diagnose_log([prefix + line for line in [*raised(lines[0]), *lines[1:]]])

    assert found.cause.endswith(told)


def test_a_message_ends_where_another_begins() -> None:
    plain = [*raised("ValueError: bent"), "Loading weights", "srun: error: n1: task 0: Exited with exit code 1"]
    later = [*(ENGINE + line for line in raised("ValueError: bent")), ENGINE.replace("10:00:10", "10:00:11") + "next"]

    assert diagnose_log(plain).cause == diagnose_log(later).cause == "ValueError: bent"


def test_a_peers_failure_does_not_hide_the_first_one() -> None:
    peer = (
        "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, remote process exited or there was a network error"
    )
    worker = "(Worker_TP0 pid=12) ERROR 12-01 10:00:00 [m.py:8] "

    for lines in ([*raised("RuntimeError: bent"), *raised(peer)], [*raised(peer), *raised("RuntimeError: bent")]):
        assert diagnose_log([worker + line for line in lines]).cause == "RuntimeError: bent"
    assert diagnose_log(raised(peer)).kind == "worker_failed"


def test_a_cause_in_the_further_lines_of_an_exception_is_found() -> None:
    error = "torch._inductor.exc.InductorError: CppCompileError: C++ compile error"
    output = ["Command:", "g++ main.cpp", "Output:", "main.cpp:1:10: fatal error: Python.h: No such file or directory"]

    assert diagnose_log([ENGINE + line for line in [*raised(error), "", *output]]).kind == "no_python_headers"


def test_rays_error_with_frames_and_no_head_is_told() -> None:
    lines = [
        *raised(
            "ray.exceptions.RayTaskError(RuntimeError): ray::RayWorkerWrapper.execute_method() (pid=2, ip=10.0.0.1)"
        ),
        '  File "/x/worker_base.py", line 620, in execute_method',
        "    raise e",
        "RuntimeError: The widget is bent",
    ]

    assert diagnose_log([f"(EngineCore_0 pid=1) ERROR 10-14 17:48:53 [core.py:7] {line}" for line in lines]).cause == (
        "RuntimeError: The widget is bent"
    )


def test_a_traceback_at_the_end_of_a_message_is_read() -> None:
    head = "(VllmWorkerProcess pid=143) ERROR 09-20 08:05:48 multiproc_worker_utils.py:226] "
    first, *rest = raised("ValueError: Torch SDPA is bent, ")
    said = "Exception in worker VllmWorkerProcess while processing method load_model: Torch SDPA is bent, "

    assert (
        diagnose_log([head + said + first, *(head + line for line in rest)]).cause == "ValueError: Torch SDPA is bent,"
    )


def test_an_exception_group_does_not_hide_its_exceptions() -> None:
    lines = [
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "/x/main.py", line 4, in <module>',
        '  |     raise ExceptionGroup("g", errors)',
        "  | ExceptionGroup: g (2 sub-exceptions)",
        "  +-+---------------- 1 ----------------",
        "    | Traceback (most recent call last):",
        '    |   File "/x/main.py", line 2, in f',
        "    | ValueError: bent",
    ]

    assert diagnose_log(lines).cause == "ValueError: bent"


@pytest.mark.parametrize("prefix", ["", ENGINE, "2025-12-01 10:00:00.715 [Error] (Server) "])
def test_a_traceback_whose_copy_has_lost_its_indentation_is_read(prefix: str) -> None:
    lines = ["Traceback (most recent call last):", "File “/x/core.py”, line 699, in run", "raise KeyError(x)"]

    assert (
        diagnose_log([prefix + line for line in [*lines, *lines[1:], "ValueError: bent"]]).cause == "ValueError: bent"
    )


def test_an_error_that_raised_nothing_does_not_hide_one_that_did() -> None:
    said = "ERROR 10-21 09:11:55 [moe.py:34] Some kernels are not there: No module named 'some_kernels'"

    assert diagnose_log([said, *raised("RuntimeError: bent")]).cause == "RuntimeError: bent"
    assert diagnose_log([said, *(ENGINE + line for line in raised("RuntimeError: bent"))]).cause == "RuntimeError: bent"
    assert diagnose_log([said]).kind == "module_missing"


def test_what_ray_puts_behind_a_repeated_line_is_left_out() -> None:
    tail = " [repeated 3x across cluster] (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable)"
    head = "(RayWorkerWrapper pid=11, ip=10.0.0.2) ERROR 12-01 10:00:00 worker_base.py:480] "

    assert diagnose_log([head + line + tail for line in raised("RuntimeError: bent")]).cause == "RuntimeError: bent"


def test_lines_of_megabytes_hide_no_cause() -> None:
    for long in ("x" * 5_000_000, '{"a":' * 200_000, "Loading 1%\r" * 10_000, "a-1" * 100_000):
        assert diagnose_log([long, f"{ENGINE}{MEMORY}", long]).kind == "out_of_memory"


def test_what_python_ignores_is_no_cause() -> None:
    lines = ["Exception ignored in: <function Weights.__del__ at 0x7f>", *raised("AttributeError: gone")]

    assert diagnose_log(lines).kind == NO_FAILURE


def test_a_json_log_is_read() -> None:
    error = ["EngineCore failed to start.", *raised("ValueError: bent")]
    lines = [
        json.dumps({"asctime": "01-01 10:00:00", "levelname": "INFO", "message": "trust_remote_code=True"}),
        json.dumps({"levelname": "ERROR", "message": "\n".join(error), "processName": "EngineCore"}),
        '{"not": "a record"',
    ]

    assert diagnose_log(lines).cause == "ValueError: bent"


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([f"{ENGINE}{MEMORY}", OPENED, READY], NO_FAILURE),  # survived
        ([OPENED, READY, f"{ENGINE}{MEMORY}"], "out_of_memory"),
        ([OPENED, f"{ENGINE}{MEMORY}", READY], "out_of_memory"),  # errors come in a file of their own
        ([f"{ENGINE}{MEMORY}", WRAPPER, OPENED, READY], "out_of_memory"),  # one of two servers
        ([READY, "OSError: [Errno 98] Address already in use"], "port_in_use"),
        (
            [OPENED, READY, *raised("ValueError: of a request"), "x: JOB 7 ON n CANCELLED AT t DUE TO TIME LIMIT"],
            "time_limit",
        ),
        ([OPENED, READY, "slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026-01-01T10:00:00 ***"], "cancelled"),
        ([*raised("ValueError: bent"), "slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026 ***"], "unknown"),
        ([*raised("KeyboardInterrupt: terminated")], "stopped"),
        ([f"{ENGINE}{MEMORY}", WRAPPER, "slurmstepd: error: *** JOB 7 ON n CANCELLED AT 2026 ***"], "out_of_memory"),
        ([WRAPPER, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0."], "host_out_of_memory"),
        ([WRAPPER, "srun: error: n: task 0: Out Of Memory"], "host_out_of_memory"),
        ([WRAPPER, "srun: error: Node failure on gaudi004"], "node_failed"),
    ],
)
def test_when_a_line_comes_decides_what_it_means(lines: list[str], kind: str) -> None:
    assert diagnose_log(lines).kind == kind


def test_the_page_has_the_tables_of_these_logs_and_rows(repo: Path) -> None:
    text = (repo / "docs" / "servers.md").read_text(encoding="utf-8")

    assert failure_tables.START in text
    assert failure_tables.page(text) == text, "make them with tests/support/failure_tables.py"
