"""Each row of the table of failures, on staged lines as servers, Slurm and the client write them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tautools.params.models import ServerParams
from tautools.server.failures import CLIENT, FAILURES
from tautools.server.failures.causes import diagnose, diagnose_answer, diagnose_refusal
from tautools.server.relaunch import changed

WRAPPER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
ENGINE = "(EngineCore_DP0 pid=77) ERROR 11-21 02:00:01 [v1/engine/core.py:1100] "


class Staged(NamedTuple):
    row: str
    kind: str
    line: str
    fix: Mapping[str, Any] = MappingProxyType({})
    exit_code: int | None = 1
    job_state: str = ""


STAGED = [
    Staged("1", "no_memory_for_kv", "ValueError: No available memory for the cache blocks. Try increasing `gpu_mem"),
    Staged(
        "2",
        "kv_cache_too_small",
        "ValueError: To serve at least one request with the models's max seq len (40960), 9.00 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (5.50 GiB). Based on the available memory, the estimated "
        "maximum model length is 25024. Try increasing",
        {"vllm.max_model_len": 25024},
    ),
    Staged(
        "3",
        "kv_cache_too_small",
        "ValueError: The model's max seq len (40960) is larger than the maximum number of tokens that can be stored in "
        "KV cache (18432). Try increasing",
        {"vllm.max_model_len": 18432},
    ),
    Staged(
        "4",
        "length_above_model",
        "  Value error, User-specified max_model_len (1000000) is greater than the derived max_model_len "
        "(max_position_embeddings=40960 or model_max_length=None in model's config.json). This may",
        {"vllm.max_model_len": 40960},
    ),
    Staged(
        "5",
        "heads_not_divisible",
        "  Value error, Total number of attention heads (32) must be divisible by tensor parallel size (3).",
        {"vllm.tensor_parallel_size": 2},
    ),
    Staged("6", "not_divisible", "AssertionError: 151936 is not divisible by 3"),
    Staged(
        "7",
        "card_held",
        "ValueError: Free memory on device cuda:0 (60.00/80.00 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 72.0 GiB).",
        {"vllm.gpu_memory_utilization": 0.72},
    ),
    Staged("8", "out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB. GPU 0 has"),
    Staged(
        "9", "out_of_memory", "RuntimeError: [Rank:0] FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::4"
    ),
    Staged(
        "10",
        "warm_up_out_of_memory",
        "RuntimeError: HPU out of memory occurred when warming up graphs",
        {"env.VLLM_GRAPH_RESERVED_MEM": "0.2"},
    ),
    Staged("11", "card_held", "RuntimeError: synStatus=8 [Device not found] Device acquire failed."),
    Staged("12", "graph_compile_failed", "RuntimeError: Graph compile failed. synStatus=26 [Generic failure]."),
    Staged("13", "device_hiccup", "RuntimeError: Unsupported device: the device type is 7"),
    Staged("14", "no_device", "RuntimeError: Failed to infer device type, please set the environment variable"),
    Staged(
        "15",
        "scale_patching",
        "AssertionError: scale method MAXABS is not supported for runtime scale patching",
        {"env.RUNTIME_SCALE_PATCHING": "0"},
    ),
    Staged(
        "16",
        "full_warm_up_broken",
        "torch._dynamo: skip_guard_eval_unsafe is set. Recompilation triggered",
        {"env.VLLM_FULL_WARMUP": None},
    ),
    Staged(
        "17",
        "modules_not_numbers",
        "ValueError: invalid literal for int() with base 10: 'all'",
        {"env.HABANA_VISIBLE_MODULES": None},
    ),
    Staged("18", "glibc_too_old", "ImportError: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by"),
    Staged(
        "19",
        "habana_logs",
        "mkdir: cannot create directory '/var/log/habana_logs/77': Permission denied",
        {"env.HABANA_LOGS": "/tmp/habana_logs"},
    ),
    Staged(
        "20",
        "unknown_flag",
        "vllm: error: unrecognized arguments: --swap-space 16",
        {"vllm.args.swap_space": None},
        exit_code=2,
    ),
    Staged("21", "model_missing", "vllm serve: error: the following arguments are required: model_tag", exit_code=2),
    Staged("22", "bad_value", "vllm serve: error: argument --max-model-len: invalid int value: 'many'", exit_code=2),
    Staged(
        "23",
        "no_tool_parser",
        "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
        {"vllm.tool_call_parser": "hermes"},
    ),
    Staged(
        "24",
        "unknown_tool_parser",
        "KeyError: 'invalid tool call parser: hermess (chose from { hermes,openai,qwen3_xml })'",
        {"vllm.tool_call_parser": "hermes"},
    ),
    Staged(
        "25",
        "unknown_reasoning_parser",
        "KeyError: 'invalid reasoning parser: qwen-3 (chose from { deepseek_r1,qwen3 })'",
        {"vllm.reasoning_parser": "qwen3"},
    ),
    Staged(
        "26",
        "no_tool_parser",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        {"vllm.tool_call_parser": "hermes"},
    ),
    Staged(
        "27", "no_chat_template", "ValueError: As of transformers v4.44, default chat template is no longer allowed"
    ),
    Staged("28", "chat_template_missing", "FileNotFoundError: the supplied chat template path doesn't exist"),
    Staged("29", "model_not_supported", "Value error, Model architectures ['NewLM'] are not supported for now. Supp"),
    Staged("30", "class_not_loaded", "Model architectures ['Qwen3LM'] failed to be inspected. Please check the logs"),
    Staged("31", "transformers_too_old", "model type `new` but Transformers does not recognize this architecture."),
    Staged("32", "tokenizers_too_old", "Exception: data did not match any variant of untagged enum ModelWrapper at"),
    Staged("33", "transformers_too_new", "AttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended"),
    Staged(
        "34", "own_code", "ValueError: The repository x requires you to execute the configuration file in that repo"
    ),
    Staged("35", "no_such_model", "ValueError: Invalid repository ID or local directory specified: '/no/such'."),
    Staged("36", "gated", "OSError: You are trying to access a gated repo. Make sure to have access to it"),
    Staged("37", "not_cached", "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached"),
    Staged("38", "hub_silent", "ERROR 11-21 02:00:01 [config.py:156] Error retrieving file list: , retrying 1 of 2"),
    Staged("39", "no_weights", "RuntimeError: Cannot find any model weights with `/models/half`"),
    Staged("40", "port_in_use", "OSError: [Errno 98] Address already in use", {"port": None}),
    Staged(
        "41",
        "internal_port_in_use",
        "torch.distributed.DistNetworkError: The server socket has failed to listen. port: 29500, code: -98, name: "
        "EADDRINUSE, message: address already in use",
        {"env.VLLM_PORT": None},
    ),
    Staged(
        "42",
        "vllm_port_set",
        "ValueError: VLLM_PORT 'tcp://10.0.0.1:80' appears to be a URI. This may be caused by",
        {"env.VLLM_PORT": None},
    ),
    Staged(
        "43",
        "socket_path_too_long",
        'zmq.error.ZMQError: ipc path "/very/long" is longer than 107 characters (sizeof(sockaddr_un.sun_path)).',
        {"env.VLLM_RPC_BASE_PATH": "/tmp"},
    ),
    Staged(
        "44",
        "swap_too_large",
        "ValueError: Too large swap space. 32.00 GiB out of the 40.00 GiB total CPU memory",
        {"vllm.args.swap_space": 0},
    ),
    Staged("45", "disk_full", "OSError: [Errno 28] No space left on device: '/home/me/.cache/vllm'"),
    Staged("46", "stale_file", "OSError: [Errno 116] Stale file handle"),
    Staged("47", "host_out_of_memory", "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", exit_code=-9),
    Staged("47", "host_out_of_memory", "Killed", exit_code=None, job_state="OUT_OF_MEMORY"),
    Staged("48", "time_limit", "slurmstepd: error: *** JOB 7 ON gaudi001 CANCELLED AT 2026 DUE TO TIME LIMIT ***"),
    Staged("49", "not_associated", "sbatch: error: Batch job submission failed: Invalid qos specification"),
    Staged("50", "no_such_nodes", "sbatch: error: Requested node configuration is not available"),
    Staged("51", "unknown_gres", "sbatch: error: Invalid generic resource (gres) specification"),
    Staged(
        "52",
        "inherited_job_variables",
        "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually exclusive.",
    ),
    Staged("53", "too_many_at_once", "AssertionError: actual_blocks_needed=900 exceeds total KV blocks 800"),
    Staged(
        "54",
        "batch_below_length",
        "  Value error, max_num_batched_tokens (512) is smaller than max_model_len (4096). This effectively",
        {"vllm.args.max_num_batched_tokens": 4096},
    ),
    Staged(
        "55",
        "batch_below_requests",
        "  Value error, max_num_batched_tokens (64) must be greater than or equal to max_num_seqs (128). [type=value",
        {"vllm.max_num_seqs": 64},
    ),
    Staged(
        "56",
        "unknown_quantization",
        "  Value error, Unknown quantization method: nosuch. Must be one of ['awq', 'fp8']",
        {"vllm.args.quantization": None},
    ),
    Staged(
        "57",
        "weights_damaged",
        "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata",
    ),
    Staged(
        "58", "config_damaged", "OSError: It looks like the config file at '/m/config.json' is not a valid JSON file."
    ),
    Staged(
        "59",
        "weights_of_another_model",
        "ValueError: Following weights were not initialized from checkpoint: {'model.layers.2.self_attn.q'}",
    ),
    Staged("60", "address_not_here", "OSError: [Errno 99] Cannot assign requested address"),
    Staged(
        "61",
        "host_memory_held",
        "ValueError: Available memory on node 0 (6.00/10.00 GiB) on startup is less than desired CPU memory utiliz "
        "(0.99, 9.49 GiB). On the CPU backend, the",
        {"vllm.gpu_memory_utilization": 0.58},
    ),
    Staged(
        "62",
        "host_memory_for_kv",
        "ValueError: Available memory on node 0 (8.38/9.59 GiB) on kv cache allocation is less than reque",
    ),
    Staged(
        "63",
        "too_few_cpu_nodes",
        "AssertionError: Not enough allowed NUMA nodes to bind threads of 3 local CPUWorkers. Allowed NUMA no",
        {"vllm.tensor_parallel_size": 1},
    ),
    Staged("64", "block_size", "ValueError: No common block size for 7 (CPU_ATTN: [MultipleOf(32)])."),
    Staged("65", "unknown_draft", "NotImplementedError: Unsupported speculative method: 'mtp'"),
    Staged("66", "no_adapter", "ValueError: Loading lora a failed: No adapter found for /no/such"),
    Staged("67", "unknown_rope", "ValueError: Unknown RoPE scaling type nosuch"),
    Staged("68", "driver_too_old", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."),
    Staged(
        "69",
        "dtype_not_supported",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla V100 GPU",
        {"vllm.dtype": "float16"},
    ),
    Staged("70", "cards_do_not_talk", "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO"),
    Staged(
        "71",
        "too_few_cards",
        "  Value error, World size (4) is larger than the number of available GPUs (1) in th",
    ),
    Staged("72", "too_many_files", "OSError: [Errno 24] Too many open files: '/dev/shm/x'"),
    Staged("73", "no_permission", "PermissionError: [Errno 13] Permission denied: '/scratch/hf'"),
    Staged("74", "command_missing", "/var/spool/slurmd/job00007/slurm_script: line 30: vllm: command not found"),
    Staged("75", "module_unknown", 'Lmod has detected the following error: The following module(s) are unknown: "m"'),
    Staged("76", "environment_unknown", "EnvironmentNameNotFound: Could not find conda environment: gaudi-vllm"),
    Staged("77", "preempted", "slurmstepd: error: *** JOB 7 ON gaudi001 CANCELLED AT 2026 DUE TO PREEMPTION ***"),
    Staged("78", "node_failed", "slurmstepd: error: *** JOB 7 ON gaudi001 CANCELLED AT 2026 DUE TO NODE FAILURE"),
    Staged("79", "no_such_partition", "sbatch: error: invalid partition specified: gaudy"),
    Staged("80", "over_a_limit", "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"),
    Staged("81", "time_limit_refused", "sbatch: error: Batch job submission failed: Requested time limit is invalid"),
    Staged("82", "slurm_silent", "sbatch: error: Unable to contact slurm controller (connect failure)"),
    Staged("83", "name_not_known", "socket.gaierror: [Errno -2] Name or service not known"),
    Staged("84", "host_out_of_memory", "slurmstepd: error: StepId=7.batch exceeded memory limit (2 > 1), being killed"),
    Staged("-", "module_missing", "ModuleNotFoundError: No module named 'vllm'"),
]

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
def test_a_row_is_told_through_prefix_wrapper_colour_and_progress(staged: Staged) -> None:
    lines = [
        "WARNING 11-21 02:00:00 [_custom_ops.py:22] Failed to import from vllm._C with ImportError('x')",
        f"Loading weights:  50%\r\x1b[31m{ENGINE}{staged.line}\x1b[0m",
        "Traceback (most recent call last):",
        '  File "core.py", line 1, in run',
        '    raise OSError("[Errno 98] Address already in use")',
        WRAPPER,
    ]

    found = diagnose(lines, exit_code=staged.exit_code, job_state=staged.job_state, spec=SPEC)

    assert (found.row, found.kind) == (staged.row, staged.kind)
    assert found.evidence.endswith(staged.line.removeprefix("ERROR 11-21 02:00:01 [config.py:156] ").strip())
    assert dict(found.fix) == dict(staged.fix)
    assert found.remedy.endswith(".")
    assert ServerParams.model_validate(changed(SPEC, found.fix)[0])


def test_every_row_of_the_table_has_a_staged_line() -> None:
    tested = {each.row for each in STAGED} | {"W1", "W2", "W3", "B1", "B2", "B3", "B4", "B5"}
    tested |= {f"C{number}" for number in range(1, 8)}

    assert {row.row for row in (*FAILURES, *CLIENT)} == tested
    assert {str(number) for number in range(1, 85)} <= tested


HARMLESS = [
    "WARNING 11-21 02:00:00 [_custom_ops.py:22] Failed to import from vllm._C with ImportError('libcuda.so.1')",
    "WARNING 11-21 02:00:00 [platform.py:372] Pin memory is not supported on HPU.",
    "WARNING 11-21 02:00:00 [utils.py:1] We must use the `spawn` multiprocessing start method. Overriding VLLM_WOR",
    "ImportError: torchvision is not available. No module named 'torchvision'",
    "WARNING 11-26 14:55:52 [x.py:255] Found ulimit of 9 and failed to automatically increase: `Too many open files`.",
    "WARNING 11-21 02:00:00 [hpu.py:3643] Configuration: ('prompt', 1, 128, 0) was not warmed-up!",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_a_harmless_line_is_no_cause(line: str) -> None:
    assert diagnose([line], exit_code=7).cause == "It ended with status 7."


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (WRAPPER, "W1"),
        ("RuntimeError: Engine process failed to start. See stack trace for the root cause.", "W2"),
        ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace", "W3"),
    ],
)
def test_a_wrapper_is_told_only_when_nothing_else_is_there(line: str, row: str) -> None:
    assert diagnose([line], exit_code=1).row == row
    assert diagnose([line, f"{ENGINE}ValueError: the moon"], exit_code=1).cause == "ValueError: the moon"
    assert diagnose([line, "OSError: [Errno 98] Address already in use"], exit_code=1).row == "40"


def test_a_killed_word_without_the_signal_is_not_a_lack_of_memory() -> None:
    assert diagnose(["Killed"], exit_code=1).kind == "unknown"
    assert diagnose(["Killed"]).kind == "unknown"


def test_a_refused_value_counts_only_with_the_exit_status_of_a_refusal() -> None:
    line = "vllm serve: error: argument --max-model-len: invalid int value: 'many'"

    assert diagnose([line], exit_code=-15).kind == "unknown"


def test_a_cause_counts_before_a_late_row_that_stands_above_it() -> None:
    lines = ["Error retrieving file list: , retrying", "OSError: You are trying to access a gated repo."]

    assert diagnose(lines).kind == "gated"


def test_what_all_workers_say_is_told_once() -> None:
    said = "ERROR 11-21 02:00:01 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB."
    lines = [f"(Worker_TP{rank} pid={rank + 5}) {said}" for rank in range(4)]

    found = diagnose([*lines, f"{lines[0]} GPU 3"])

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

    assert diagnose(lines).cause == "ValueError: the moon"


def test_a_renamed_flag_keeps_its_value() -> None:
    spec = ServerParams.model_validate(
        {"name": "s", "model": "m", "vllm": {"args": {"chat-template-kwargs": {"enable_thinking": False}}}}
    ).model_dump(mode="json")
    line = 'vllm: error: unrecognized arguments: --chat-template-kwargs {"enable_thinking": false}'

    found = diagnose([line], exit_code=2, spec=spec)

    assert changed(spec, found.fix)[0]["vllm"]["args"] == {"default_chat_template_kwargs": {"enable_thinking": False}}


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
def test_a_refused_request_is_told(text: str, alive: bool | None, kind: str | None) -> None:
    found = diagnose_refusal(text, server_alive=alive)

    assert (found.kind if found else None) == kind


@pytest.mark.parametrize(
    ("content", "answer", "kind"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {}}', {}, "tool_call_in_text"),
        ('{"name": "get_order", "arguments": {"id": 1}}', {}, "tool_call_in_text"),
        ('{"name": "get_order", "arguments": {"id": 1}}', {"asked_tools": False}, None),
        ("", {"reasoning": "Let me see"}, "only_thinking"),
        ("", {"reasoning": "Let me see", "tool_calls": 1}, None),
        ("Your order is on its way.", {"reasoning": "Let me see"}, None),
    ],
)
def test_an_answer_without_an_error_can_be_wrong(content: str, answer: dict[str, Any], kind: str | None) -> None:
    found = diagnose_answer(content, **answer)

    assert (found.kind if found else None) == kind
