"""The first cause of a failed start, from the last lines that a real vLLM 0.32 writes."""

from __future__ import annotations

import pytest

from tautools.servers.diagnose import diagnose_log

WRAPPER = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
)
ENGINE = "(EngineCore pid=77) ERROR 11-21 02:00:01 [core.py:1100] "

CASES = [
    ("port_in_use", ["OSError: [Errno 98] Address already in use"]),
    ("unknown_flag", ["vllm: error: unrecognized arguments: --no-such-flag"]),
    ("bad_value", ["vllm serve: error: argument --max-model-len: invalid int value: 'many'"]),
    ("unknown_tool_parser", ["KeyError: 'invalid tool call parser: nope (chose from { hermes, openai })'"]),
    ("unknown_reasoning_parser", ["KeyError: 'invalid reasoning parser: nope (chose from { qwen3 })'"]),
    ("no_tool_parser", ["TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser"]),
    ("no_such_model", ["huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name'"]),
    ("not_cached", ["huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot"]),
    (
        "length_above_model",
        [
            "Value error, User-specified max_model_len (1000000) is greater than the derived max_model_len (131072).",
        ],
    ),
    (
        "kv_cache_too_small",
        [f"{ENGINE}ValueError: To serve at least one request with the model's max seq len (65536), 0.03 GiB", WRAPPER],
    ),
    ("out_of_memory", [f"{ENGINE}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB.", WRAPPER]),
    ("card_held", ["ValueError: Free memory on device (1.2/79.2 GiB) on startup is less than desired GPU memory"]),
    ("heads_not_divisible", ["Total number of attention heads (32) must be divisible by tensor parallel size (3)."]),
    ("module_missing", ["ModuleNotFoundError: No module named 'vllm'"]),
]


@pytest.mark.parametrize(("kind", "lines"), CASES, ids=[kind for kind, _ in CASES])
def test_a_known_cause_is_found_with_a_fix(kind: str, lines: list[str]) -> None:
    found = diagnose_log(["INFO starting", *lines])

    assert found.kind == kind
    assert found.fix
    assert "{" not in found.cause + found.fix


def test_the_number_that_helps_is_in_the_fix() -> None:
    _, lines = next(case for case in CASES if case[0] == "length_above_model")

    assert diagnose_log(lines).fix == "Lower `max_model_len` in the server file to 131072."


def test_of_two_causes_the_earlier_one_counts() -> None:
    lines = ["torch.OutOfMemoryError: CUDA out of memory", "OSError: [Errno 98] Address already in use"]

    assert diagnose_log(lines).kind == "out_of_memory"


def test_an_unknown_cause_is_the_engines_own_first_error_and_not_the_wrapper() -> None:
    lines = [
        f"{ENGINE}Traceback (most recent call last):",
        f'{ENGINE}  File "core.py", line 1, in run',
        f"{ENGINE}vllm.errors.StrangeError: the moon is in the wrong house",
        "Traceback (most recent call last):",
        WRAPPER,
    ]

    assert diagnose_log(lines).cause == "vllm.errors.StrangeError: the moon is in the wrong house"


def test_of_a_plain_traceback_the_last_line_counts() -> None:
    lines = ["Traceback (most recent call last):", "KeyError: 'a'", "During handling", "ValueError: bad b", ""]

    assert diagnose_log(lines).cause == "ValueError: bad b"


def test_harmless_lines_are_no_cause() -> None:
    found = diagnose_log(["WARNING Failed to import from vllm._C with ImportError('x')"], exit_code=-9)

    assert found.cause == "It was ended by signal 9."


def test_without_a_log_the_exit_status_is_reported() -> None:
    assert diagnose_log([], exit_code=3).cause == "It ended with status 3."
    assert diagnose_log([]).cause == "The log is empty: no failure found."


def test_slurms_state_decides_what_the_log_and_the_exit_status_leave_open() -> None:
    log = ["INFO loading weights", "/var/spool/slurmd/job00007/slurm_script: line 98: 4711 Killed   vllm serve"]

    assert diagnose_log(log, exit_code=1, job_state="FAILED").kind == "unknown"
    assert diagnose_log(log, job_state="OUT_OF_MEMORY").kind == "host_out_of_memory"
    assert diagnose_log(["INFO loading weights"], job_state="NODE_FAIL").cause == "Slurm ended its job: NODE_FAIL."
