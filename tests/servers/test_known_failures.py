"""Each row of the table of failures, on staged lines as servers, Slurm and the client write them."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from staged_failures import ENGINE, STAGED, WRAPPER, Staged

from tautools.params.models import ServerParams
from tautools.servers.diagnose import FIXES, When, diagnose_answer, diagnose_log, diagnose_refusal, known_failures
from tautools.servers.start import apply_fix

SPEC = ServerParams.model_validate(
    {
        "name": "s",
        "model": "Qwen/Qwen3-8B",
        "port": 8007,
        "env": {"VLLM_PORT": "1", "VLLM_FULL_WARMUP": "1", "HABANA_VISIBLE_MODULES": "all"},
        "vllm": {
            "max_model_len": 40961,
            "tensor_parallel_size": 3,
            "args": {"swap_space": 16, "quantization": "nosuch"},
        },
    }
).model_dump(mode="json")


@pytest.mark.parametrize("staged", STAGED, ids=[f"{each.row}-{each.kind}" for each in STAGED])
def test_a_row_is_found_through_prefix_wrapper_colour_and_progress(staged: Staged) -> None:
    lines = [
        "WARNING 11-21 02:00:00 [_custom_ops.py:22] Failed to import from vllm._C with ImportError('x')",
        f"Loading weights:  50%\r\x1b[31m{ENGINE}{staged.line}\x1b[0m",
        "Traceback (most recent call last):",
        '  File "core.py", line 1, in run',
        '    raise OSError("[Errno 98] Address already in use")',
        WRAPPER,
    ]

    found = diagnose_log(lines, exit_code=staged.exit_code, job_state=staged.job_state, spec=SPEC)

    assert (found.id, found.kind) == (staged.row, staged.kind)
    assert found.evidence.endswith(staged.line.removeprefix("ERROR 11-21 02:00:01 [config.py:156] ").strip())
    assert dict(found.changes) == dict(staged.changes)
    assert found.fix.endswith(".")
    assert ServerParams.model_validate(apply_fix(SPEC, found.changes)[0])


def test_every_row_is_whole_and_names_a_fix_that_exists() -> None:
    rows = known_failures()

    assert len({row.id for row in rows}) == len(rows) == 136
    assert {place for row in rows for place in row.when} == set(get_args(When))
    assert {name for row in rows for name in row.auto} == set(FIXES)
    assert all(row.cause.endswith(".") and row.fix.endswith(".") for row in rows)


def test_every_row_of_the_table_has_a_staged_line() -> None:
    tested = {each.row for each in STAGED} | {f"W{number}" for number in range(1, 7)}
    tested |= {f"{kind}{number}" for number in range(1, 8) for kind in "BC"}

    assert {row.id for row in known_failures()} == tested
    assert {str(number) for number in range(1, 116)} <= tested


HARMLESS = [
    "WARNING 11-21 02:00:00 [_custom_ops.py:22] Failed to import from vllm._C with ImportError('libcuda.so.1')",
    "WARNING 11-21 02:00:00 [platform.py:372] Pin memory is not supported on HPU.",
    "WARNING 11-21 02:00:00 [utils.py:1] We must use the `spawn` multiprocessing start method. Overriding VLLM_WOR",
    "ImportError: torchvision is not available. No module named 'torchvision'",
    "WARNING 11-26 14:55:52 [x.py:255] Found ulimit of 9 and failed to automatically increase: `Too many open files`.",
    "WARNING 11-21 02:00:00 [hpu.py:3643] Configuration: ('prompt', 1, 128, 0) was not warmed-up!",
    "resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked semaphore objects to",
    "ERROR 11-21 02:00:00 [serving_chat.py:9] ValueError: This model's maximum context length is 4096 tokens. However",
    "WARNING 11-21 02:00:00 [utils.py:334] Attempted to load weight x with dtype torch.bfloat16 into",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_a_harmless_line_is_no_cause(line: str) -> None:
    assert diagnose_log([line], exit_code=7).cause == "It ended with status 7."


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (WRAPPER, "W1"),
        ("RuntimeError: Engine process failed to start. See stack trace for the root cause.", "W2"),
        ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace", "W3"),
        ("Exception: WorkerProc initialization failed due to an exception in a background process. See stack", "W4"),
        (
            "ray.exceptions.RayTaskError(RuntimeError): ray::RayWorkerWrapper.execute_method() (pid=2, ip=10.0.0.2)",
            "W4",
        ),
        ("torch.multiprocessing.spawn.ProcessRaisedException:", "W4"),
        (
            "(EngineCore pid=7) ERROR 11-21 02:00:01 [core.py:9] ConnectionResetError: [Errno 104] Connection reset",
            "W4",
        ),
        ("srun: error: gaudi001: task 0: Exited with exit code 1", "W5"),
    ],
)
def test_a_wrapper_counts_only_when_there_is_nothing_else(line: str, row: str) -> None:
    assert diagnose_log([line], exit_code=1).id == row
    assert diagnose_log([line, f"{ENGINE}ValueError: the moon"], exit_code=1).cause == "ValueError: the moon"
    assert diagnose_log([line, "OSError: [Errno 98] Address already in use"], exit_code=1).id == "40"


def test_a_killed_word_is_a_lack_of_memory_unless_the_exit_status_says_otherwise() -> None:
    assert diagnose_log(["Killed"], exit_code=1).kind == "unknown"
    assert diagnose_log(["Killed"]).cause.startswith("It was killed (signal 9)")
    assert diagnose_log(["Killed process 7 of yesterday's run was found"], exit_code=1).kind == "unknown"


def test_a_refused_value_counts_only_with_the_exit_status_of_a_refusal() -> None:
    line = "vllm serve: error: argument --max-model-len: invalid int value: 'many'"

    assert diagnose_log([line], exit_code=-15).kind == "unknown"


def test_a_cause_counts_before_a_late_row_that_stands_above_it() -> None:
    lines = ["Error retrieving file list: , retrying", "OSError: You are trying to access a gated repo."]

    assert diagnose_log(lines).kind == "gated"


def test_what_all_workers_say_is_reported_once() -> None:
    said = "ERROR 11-21 02:00:01 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB."
    lines = [f"(Worker_TP{rank} pid={rank + 5}) {said}" for rank in range(4)]

    found = diagnose_log([*lines, f"{lines[0]} GPU 3"])

    assert found.evidence == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB."
    assert found.also == ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB. GPU 3",)


def test_code_quoted_by_mixed_tracebacks_of_workers_is_not_a_cause() -> None:
    head = "(Worker_TP{} pid={}) ERROR 11-21 02:00:01 [x.py:1] "
    one, two = head.format(0, 5), head.format(1, 6)
    lines = [
        f"{one}Traceback (most recent call last):",
        f"{two}Traceback (most recent call last):",
        f'{one}  File "utils.py", line 1, in check',
        f'{two}  File "utils.py", line 1, in check',
        f'{one}    raise ValueError("No available memory for the cache blocks")',
        f'{two}    raise ValueError("No available memory for the cache blocks")',
        f"{one}ValueError: the moon",
        f"{two}ValueError: the moon",
    ]

    assert diagnose_log(lines).cause == "ValueError: the moon"


def test_a_renamed_flag_keeps_its_value() -> None:
    spec = ServerParams.model_validate(
        {"name": "s", "model": "m", "vllm": {"args": {"chat-template-kwargs": {"enable_thinking": False}}}}
    ).model_dump(mode="json")
    line = 'vllm: error: unrecognized arguments: --chat-template-kwargs {"enable_thinking": false}'

    found = diagnose_log([line], exit_code=2, spec=spec)

    assert apply_fix(spec, found.changes)[0]["vllm"]["args"] == {
        "default_chat_template_kwargs": {"enable_thinking": False}
    }


@pytest.mark.parametrize(
    ("text", "alive", "kind"),
    [
        ("This model's maximum context length is 4096 tokens. However, your prompt", True, "context_overflow"),
        ("The model `nope` does not exist.", True, "wrong_model_name"),
        ("Connection reset by peer", False, "server_gone"),
        ("Connection reset by peer", True, None),
        ("Connection reset by peer", None, None),
        ('"auto" tool choice requires --enable-auto-tool-choice', True, "no_tool_parser"),
        ("Unauthorized", True, "wrong_key"),
        ("Conversation roles must alternate user/assistant/user/assistant/...", True, "template_refuses"),
        ("I am a teapot", True, None),
    ],
)
def test_a_refused_request_is_diagnosed(text: str, alive: bool | None, kind: str | None) -> None:
    found = diagnose_refusal(text, server_alive=alive)

    assert (found.kind if found else None) == kind


@pytest.mark.parametrize(
    ("content", "answer", "kind"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {}}', {}, "tool_call_in_text"),
        ('{"name": "get_order", "arguments": {"id": 1}}', {}, "tool_call_in_text"),
        ('{"name": "get_order", "arguments": {"id": 1}}', {"asked_tools": False}, None),
        ("", {"reasoning": "Let me see"}, "only_thinking"),
        ("Your order is on its way.", {"reasoning": "Let me see"}, None),
    ],
)
def test_an_answer_without_an_error_can_be_wrong(content: str, answer: dict[str, Any], kind: str | None) -> None:
    found = diagnose_answer(content, **answer)

    assert (found.kind if found else None) == kind


@pytest.mark.parametrize(
    ("content", "parser"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "hermes"),
        ("<seed:tool_call><function=f></function></seed:tool_call>", "seed_oss"),
        ('[TOOL_CALLS][{"name": "f", "arguments": {}}]', "mistral"),
    ],
)
def test_a_call_in_the_text_names_the_parser_that_reads_it(content: str, parser: str) -> None:
    found = diagnose_answer(content)

    assert found is not None
    assert found.fix == f"Set `tool_call_parser: {parser}` in the server file."
