"""A line of a log for each row of the table of failures, as vLLM, its parts and the machine write it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["ENGINE", "STAGED", "WRAPPER", "Staged"]

WRAPPER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
ENGINE = "(EngineCore_DP0 pid=77) ERROR 11-21 02:00:01 [v1/engine/core.py:1100] "


class Staged(NamedTuple):
    row: str
    kind: str
    line: str
    changes: Mapping[str, Any] = MappingProxyType({})
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
    Staged("47", "host_out_of_memory", "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", exit_code=None),
    Staged(
        "47", "host_out_of_memory", "kernel: Out of memory: Killed process 42 (python3) total-vm:9kB", exit_code=None
    ),
    Staged("87", "host_out_of_memory", "Killed", exit_code=None, job_state="OUT_OF_MEMORY"),
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
    Staged(
        "85",
        "parser_of_another_version",
        "TypeError: Hermes2ProToolParser.extract_tool_calls() got an unexpected keyword argument 'token_ids'",
    ),
    Staged(
        "86",
        "quantization_not_supported",
        "  Value error, The quantization method mxfp4 is not supported for the current GPU. Minimum capability: 90. C",
    ),
    Staged("87", "host_out_of_memory", "Killed", exit_code=None),
    Staged("87", "host_out_of_memory", "Killed", exit_code=137),
    Staged(
        "87", "host_out_of_memory", "RuntimeError: Worker proc VllmWorker-1 died unexpectedly (exit code: -9)", {}, None
    ),
    Staged("88", "profiling_disturbed", "AssertionError: Error in memory profiling. Initial free memory 82.94 GiB"),
    Staged("89", "no_card", "RuntimeError: No CUDA GPUs are available"),
    Staged("90", "no_such_card", "torch.AcceleratorError: CUDA error: invalid device ordinal"),
    Staged("91", "system_not_ready", "RuntimeError: Unexpected error. Error 802: system not yet initialized"),
    Staged("92", "card_broken", "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"),
    Staged("92", "card_broken", "NVRM: Xid (PCI:0000:3b:00): 79, pid=42, GPU has fallen off the bus."),
    Staged(
        "93",
        "cuda_in_fork",
        "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must",
        {"env.VLLM_WORKER_MULTIPROC_METHOD": "spawn"},
    ),
    Staged(
        "94",
        "modules_out_of_range",
        "RuntimeError: Invalid HABANA_VISIBLE_MODULES=5. Module IDs should be between 0 and 0.",
        {"env.HABANA_VISIBLE_MODULES": None},
    ),
    Staged("95", "card_not_acquired", "RuntimeError: synStatus=26 [Generic failure] Device acquire failed."),
    Staged(
        "96",
        "attention_kernel",
        "TypeError: FusedSDPA.forward() takes from 4 to 9 positional arguments but 12 were given",
        {"env.VLLM_PROMPT_USE_FUSEDSDPA": "0"},
    ),
    Staged(
        "97",
        "gaudi_graph_input",
        "RuntimeError: [Rank:0] FATAL ERROR :: MODULE:PT_LAZY Error, ValidateSyncInputTensors tensor_data is empty.",
        {"env.VLLM_PROMPT_USE_FUSEDSDPA": "0"},
    ),
    Staged(
        "98",
        "cpu_generator",
        "RuntimeError: CPU Generator does not use offset",
        {"vllm.args.enable_chunked_prefill": False},
    ),
    Staged("99", "card_computed_wrong", "RuntimeError: CUDA error: an illegal memory access was encountered"),
    Staged(
        "100", "no_compiler", "RuntimeError: Failed to find C compiler. Please specify via CC environment variable."
    ),
    Staged("100", "no_compiler", "FileNotFoundError: [Errno 2] No such file or directory: 'gcc'"),
    Staged("101", "no_python_headers", "/tmp/x/main.c:1:10: fatal error: Python.h: No such file or directory"),
    Staged("102", "no_nvcc", "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist"),
    Staged("103", "no_ninja", "RuntimeError: Ninja is required to load C++ extensions (pip install ninja to get it)"),
    Staged("103", "no_ninja", "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'"),
    Staged("104", "build_failed", "RuntimeError: Error building extension 'rotary': [1/2] nvcc -O3"),
    Staged(
        "105",
        "compile_cache_damaged",
        "RuntimeError: Bytes object is corrupted, checksum does not match. Expected: 0a0b, Got: 0c0d",
        {"env.VLLM_DISABLE_COMPILE_CACHE": "1"},
    ),
    Staged("106", "libraries_do_not_fit", "ImportError: /env/vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDev"),
    Staged("106", "libraries_do_not_fit", "OSError: libcudart.so.12: cannot open shared object file: No such file"),
    Staged(
        "107", "hub_limit", "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://hub"
    ),
    Staged("108", "shared_memory_full", "OSError: [Errno 28] No space left on device: '/dev/shm/psm_12ab'"),
    Staged("108", "shared_memory_full", "/var/spool/slurm_script: line 24: 4242 Bus error (core dumped) vllm serve m"),
    Staged("109", "command_missing", "slurmstepd: error: execve(): vllm: No such file or directory"),
    Staged("109", "command_missing", "srun: error: execve(): /env/bin/vllm: Permission denied"),
    Staged("110", "requeued", "slurmstepd: error: *** JOB 7 ON gaudi001 CANCELLED AT 2026 DUE TO JOB REQUEUE ***"),
    Staged("111", "cancelled", "slurmstepd: error: *** JOB 7 ON gaudi001 CANCELLED AT 2026-09-21T10:00:00 ***"),
    Staged("112", "stopped", "KeyboardInterrupt: terminated", exit_code=-15),
    Staged("74", "command_missing", "/usr/bin/env: 'vllm': No such file or directory", exit_code=127),
    Staged("87", "host_out_of_memory", "srun: error: gaudi001: task 0: Exited with exit code 137", exit_code=None),
    Staged(
        "114", "host_out_of_memory", "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tr"
    ),
    Staged("115", "start_too_slow", "TimeoutError: RPC call to execute_model timed out."),
    Staged("113", "crashed", "/var/spool/slurm_script: line 24: 4242 Segmentation fault (core dumped) vllm serve m"),
    Staged("-", "module_missing", "ModuleNotFoundError: No module named 'vllm'"),
]
