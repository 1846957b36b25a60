"""The table of known failures."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tautools.servers.diagnose.fixes import (
    add_tool_parser,
    batch_from_log,
    divisor_of_heads,
    drop_flags,
    free_port,
    half_precision,
    length_from_log,
    nearest_reasoning_parser,
    nearest_tool_parser,
    no_swap,
    one_worker,
    other_environment,
    requests_from_log,
    share_that_is_free,
    without,
)

RowKind = Literal["cause", "late", "wrapper", "harmless", "client"]
"""`late` counts only when the log shows no `cause`; `wrapper` repeats another process's failure; `harmless` is none."""

AutoFix = Callable[[Mapping[str, str], Mapping[str, Any]], Mapping[str, Any]]
"""From the words the pattern captured and the server's params: params to change, by dotted name; None removes one."""


@dataclass(frozen=True, slots=True)
class ExitEvidence:
    """What must be known beside the line, because the line alone could mean something else."""

    exit_codes: frozenset[int] = frozenset()
    job_states: frozenset[str] = frozenset()
    or_unknown: bool = False
    """Whether the line is enough when neither exit status nor job state is known."""

    def holds(self, exit_code: int | None, job_state: str) -> bool:
        """Whether what is known allows the row."""
        if exit_code is None and not job_state:
            return self.or_unknown
        return exit_code in self.exit_codes or job_state in self.job_states


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A row of the table. `cause` and `remedy` may name what the pattern captures, in braces."""

    row: str
    kind: str
    """A word for programs."""
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    part: RowKind = "cause"
    fix: AutoFix | None = None
    evidence: ExitEvidence | None = None


def known_failure(row: str, kind: str, pattern: str, cause: str, remedy: str, **more: Any) -> KnownFailure:
    """Return a row; `pattern` is a regular expression that is searched in a line without its prefix.

    Parameters
    ----------
    row : str
        Its name in the table.
    kind : str
        A word for programs.
    pattern : str
        Regular expression, searched in a line without its prefix.
    cause, remedy : str
        For people; both may name what the pattern captures, in braces.
    **more
        `part`, `fix` and `evidence` of `Failure`.
    """
    return KnownFailure(row, kind, re.compile(pattern), cause, remedy, **more)


_LOOK_UP = "Look further up in the log (`tautools server logs`) for the first error of a worker."

WRAPPERS = (
    known_failure(
        "W1",
        "engine_failed",
        r"Engine core initialization failed",
        "The engine did not start, and the log does not tell why.",
        _LOOK_UP,
        part="wrapper",
    ),
    known_failure(
        "W2",
        "engine_failed",
        r"Engine process failed to start",
        "The engine did not start, and the log does not tell why.",
        _LOOK_UP,
        part="wrapper",
    ),
    known_failure(
        "W3",
        "engine_died",
        r"(?:Async)?EngineDeadError|EngineCore encountered an issue",
        "The engine died while it served, and the log does not tell why.",
        _LOOK_UP,
        part="wrapper",
    ),
)


HARMLESS = (
    known_failure(
        "B1",
        "harmless",
        r"Failed to import from vllm\._C",
        "vLLM's CUDA code is not there, which is right without CUDA.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    known_failure(
        "B2",
        "harmless",
        r"Pin memory is not supported",
        "Pinned memory is a thing of CUDA.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    known_failure(
        "B3",
        "harmless",
        r"We must use the .?spawn.? multiprocessing|Overriding VLLM_WORKER_MULTIPROC_METHOD|torchvision is not avail|"
        r"No module named '?torchvision|[Ww]orkaround.*device.*memory",
        "The platform sets this by itself, or text models do not need it.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    known_failure(
        "B5",
        "harmless",
        r"Found ulimit of \d+ and failed to automatically increase",
        "The limit of open files could not be raised; it matters only when it is reached.",
        "Nothing needs to be done.",
        part="harmless",
    ),
    known_failure(
        "B4",
        "cold_shape",
        r"was not warmed-up!",
        "A request had a shape that was not warmed up, and was slow.",
        "If there are many, widen the buckets; the times of this run are worse than they could be.",
        part="harmless",
    ),
)


_REFUSED = ExitEvidence(exit_codes=frozenset({2}), or_unknown=True)

OPTIONS = (
    known_failure(
        "20",
        "unknown_flag",
        r"error: unrecognized arguments: (?P<what>.+)",
        "This vLLM does not know {what}.",
        "Remove or rename the flag in the server file; `vllm serve --help=all` lists what this version knows.",
        fix=drop_flags,
    ),
    known_failure(
        "21",
        "model_missing",
        r"the following arguments are required: model_tag",
        "The command names no model, or an option that takes a list has swallowed it.",
        "Put the model before all options in `serve_command`'s script.",
    ),
    known_failure(
        "22",
        "bad_value",
        r"error: argument (?P<what>--?[\w/, -]+): (?P<why>.+)",
        "vLLM refuses the value of {what}: {why}.",
        "Correct the value in the server file; JSON is written as a YAML mapping there.",
        evidence=_REFUSED,
    ),
    known_failure(
        "23",
        "no_tool_parser",
        r"--enable-auto-tool-choice requires",
        "Tool calls were switched on without a parser that reads them.",
        "Set `tool_call_parser` in the server file (`hermes` for Qwen3).",
        fix=add_tool_parser,
    ),
    known_failure(
        "24",
        "unknown_tool_parser",
        r"invalid tool call parser: (?P<what>[^\s(]+)(?: \(chose from \{(?P<list>[^}]*)\})?|"
        r"Tool parser '(?P<what2>[^']+)' not found(?:\. Available parsers: (?P<list2>[^\"]*))?",
        "This vLLM has no tool parser named {what}.",
        "Choose one that the log line lists; Qwen3 and Hermes models use `hermes`.",
        fix=nearest_tool_parser,
    ),
    known_failure(
        "25",
        "unknown_reasoning_parser",
        r"invalid reasoning parser: (?P<what>[^\s(]+)(?: \(chose from \{(?P<list>[^}]*)\})?|"
        r"Reasoning parser '(?P<what2>[^']+)' not found(?:\. Available parsers: (?P<list2>[^\"]*))?",
        "This vLLM has no reasoning parser named {what}.",
        "Choose one that the log line lists, or leave `reasoning_parser` out.",
        fix=nearest_reasoning_parser,
    ),
    known_failure(
        "26",
        "no_tool_parser",
        r"[\"'\\]*auto[\"'\\]* tool choice requires",
        "The server was started without a tool parser, so every turn of the benchmark is refused.",
        "Set `tool_call_parser` in the server file and start it again.",
        fix=add_tool_parser,
    ),
    known_failure(
        "4",
        "length_above_model",
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len[^\d]*(?P<most>\d+)?",
        "max_model_len {asked} is more than the model was made for ({most}).",
        "Lower `max_model_len` in the server file to {most}.",
        fix=length_from_log,
    ),
    known_failure(
        "27",
        "no_chat_template",
        r"default chat template is no longer",
        "The model comes without a chat template; it may be a base model.",
        "Use the instruct model, or give `chat_template`.",
    ),
    known_failure(
        "28",
        "chat_template_missing",
        r"chat template path doesn't exist|appears path-like, but doesn't exist|"
        r"The supplied chat template \((?P<what>[^)]*)\).*(?:doesn't|does not) exist",
        "The chat template file is not where the server looks.",
        "Correct `chat_template`, or bind its folder into the container.",
    ),
    known_failure(
        "54",
        "batch_below_length",
        r"max_num_batched_tokens \((?P<asked>\d+)\) is smaller than max_model_len \((?P<most>\d+)\)",
        "A batch may hold {asked} tokens, fewer than the {most} of one whole prompt.",
        "Set `max_num_batched_tokens` under `vllm.args` to {most} or more, or leave it out.",
        fix=batch_from_log,
    ),
    known_failure(
        "55",
        "batch_below_requests",
        r"max_num_batched_tokens \((?P<most>\d+)\) must be greater than or equal to max_num_seqs \((?P<asked>\d+)\)",
        "A batch may hold {most} tokens, fewer than the {asked} requests that may run at once.",
        "Lower `max_num_seqs` to {most}, or raise `max_num_batched_tokens` under `vllm.args`.",
        fix=requests_from_log,
    ),
    known_failure(
        "56",
        "unknown_quantization",
        r"Unknown quantization method: (?P<what>[\w-]+)",
        "This vLLM knows no quantization {what}.",
        "Leave `quantization` out: a quantized model names its own method.",
        fix=without("quantization"),
    ),
    known_failure(
        "64",
        "block_size",
        r"No common block size for (?P<what>\d+)",
        "The cache cannot be kept in blocks of {what} tokens on this device.",
        "Leave `block_size` out, or choose a multiple of 32.",
        fix=without("block_size"),
    ),
    known_failure(
        "65",
        "unknown_draft",
        r"Unsupported speculative method: '(?P<what>[^']+)'",
        "This model cannot draft by {what}.",
        "Leave `speculative_config` out, or name a method that the model brings.",
        fix=without("speculative_config"),
    ),
    known_failure(
        "66",
        "no_adapter",
        r"LoRAAdapterNotFoundError|No adapter found for (?P<what>\S+)",
        "The adapter's folder holds no adapter.",
        "Correct its path in `lora_modules` under `vllm.args`; it must hold an adapter_config.json.",
    ),
    known_failure(
        "67",
        "unknown_rope",
        r"Unknown RoPE scaling type (?P<what>\S+)",
        "This vLLM cannot stretch positions by {what}.",
        "Correct `rope_scaling` in `hf_overrides`, or use a newer vLLM.",
    ),
)


_KILLED = ExitEvidence(exit_codes=frozenset({-9, 137}), job_states=frozenset({"OUT_OF_MEMORY"}))

MEMORY = (
    known_failure(
        "1",
        "no_memory_for_kv",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the KV cache.",
        "Raise `gpu_memory_utilization` or `tensor_parallel_size`, or lower `max_model_len` and `max_num_seqs`.",
    ),
    known_failure(
        "2",
        "kv_cache_too_small",
        r"To serve at least one request with the models?'?s? max seq len"
        r"(?: \((?P<asked>\d+)\))?(?:.*estimated maximum model length is (?P<most>\d+))?",
        "The KV cache cannot hold one request of max_model_len tokens.",
        "Lower `max_model_len`, raise `gpu_memory_utilization`, or spread the model over more cards.",
        fix=length_from_log,
    ),
    known_failure(
        "3",
        "kv_cache_too_small",
        r"max seq len \((?P<asked>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache "
        r"\((?P<most>\d+)\)|is larger than the maximum number of tokens that can be",
        "The KV cache cannot hold one request of max_model_len tokens.",
        "Lower `max_model_len`, raise `gpu_memory_utilization`, or spread the model over more cards.",
        fix=length_from_log,
    ),
    known_failure(
        "7",
        "card_held",
        r"Free memory on device.*?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\).*[Dd]esired",
        "Of the card's {total} GiB only {free} are free: another process holds it.",
        "Look at the cards with nvidia-smi, end your own stale process there or take another card; or ask "
        "for less with `gpu_memory_utilization`.",
        fix=share_that_is_free,
    ),
    known_failure(
        "61",
        "host_memory_held",
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired",
        "Of the {total} GiB of the machine's memory only {free} are free, and this server on the CPU wants more.",
        "Ask for less with `gpu_memory_utilization` (on the CPU it means the machine's memory), or end what holds it.",
        fix=share_that_is_free,
    ),
    known_failure(
        "62",
        "host_memory_for_kv",
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on kv cache allocation is less",
        "The KV cache that is asked for is more than the {free} GiB of memory that are free.",
        "Lower `kv_cache_memory_bytes` under `vllm.args`, or VLLM_CPU_KVCACHE_SPACE.",
    ),
    known_failure(
        "9",
        "out_of_memory",
        r"PT_DEVMEM Allocation failed",
        "The Gaudi card's memory is not enough.",
        "Use fewer or smaller buckets, more cards (`tensor_parallel_size`), and look for a stale process on the card.",
    ),
    known_failure(
        "10",
        "warm_up_out_of_memory",
        r"HPU out of memory occurred when warming up",
        "The warm-up's graphs did not fit into the card's memory.",
        "Keep more of it for graphs (VLLM_GRAPH_RESERVED_MEM), and warm up fewer shapes: lower `max_num_seqs` or the "
        "VLLM_*_BUCKET_MAX variables.",
        fix=other_environment(VLLM_GRAPH_RESERVED_MEM="0.2"),
    ),
    known_failure(
        "8",
        "out_of_memory",
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError",
        "The card's memory is not enough.",
        "Use more cards (`tensor_parallel_size`), a shorter `max_model_len`, fewer `max_num_seqs` or a smaller model; "
        "with a draft model, also a lower `gpu_memory_utilization`.",
    ),
    known_failure(
        "44",
        "swap_too_large",
        r"Too large swap space",
        "The swap space that this older vLLM sets aside is more than the host's memory allows.",
        "Set `swap_space: 0` under `vllm.args`, or ask for more memory of the host.",
        fix=no_swap,
    ),
    known_failure(
        "47",
        "host_out_of_memory",
        r"oom[_-]kill|Out of memory: Killed process|^(?:.*: line \d+: +\d+ )?Killed\b",
        "The host's memory ran out and the kernel ended the server.",
        "Ask for more memory (weights pass through it while they load), or load fewer models at a time.",
        evidence=_KILLED,
    ),
    known_failure(
        "84",
        "host_out_of_memory",
        r"exceeded memory limit \(\d+ > \d+\), being killed|Exceeded job memory limit",
        "The job took more memory than it had asked for, and Slurm ended it.",
        "Raise `memory_gib` in the site file: the weights pass through the node's memory.",
    ),
    known_failure(
        "53",
        "too_many_at_once",
        r"actual_blocks_needed.*exceeds total KV blocks|AssertionError:? .*req_id:|req_id:.*AssertionError",
        "More requests ran at a time than the KV cache has room for.",
        "Lower `concurrency` of the run, or `max_num_seqs`, to the maximum concurrency that the log prints at first.",
    ),
)


CARDS = (
    known_failure(
        "5",
        "heads_not_divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size"
        r"(?: \((?P<cards>\d+)\))?",
        "The model's {heads} attention heads cannot be shared evenly by the cards.",
        "Choose a `tensor_parallel_size` that divides {heads}.",
        fix=divisor_of_heads,
    ),
    known_failure(
        "6",
        "not_divisible",
        r"(?:AssertionError:? ?)?(?P<size>\d+) is not divisible by (?P<cards>\d+)",
        "A part of the model of size {size} cannot be shared evenly by {cards} cards.",
        "Choose a smaller `tensor_parallel_size`, a power of two.",
    ),
    known_failure(
        "11",
        "card_held",
        r"Device acquire failed|synStatus=8\b",
        "The Gaudi card is taken, not visible, or not yet released by the server before.",
        "Look at the cards with hl-smi, wait until their memory is back, check the module ids, end "
        "your own stale processes; if it stays, take a fresh job.",
    ),
    known_failure(
        "12",
        "graph_compile_failed",
        r"synStatus=26\b|Graph compile failed",
        "Gaudi's compiler failed: driver and software of different versions, no GC_KERNEL_PATH, or a shape too large.",
        "Compare the versions of driver and environment, set GC_KERNEL_PATH as a login shell has it, or lower the "
        "prompt buckets (VLLM_PROMPT_*_BUCKET_MAX).",
    ),
    known_failure(
        "13",
        "device_hiccup",
        r"Unsupported device: the device type is 7",
        "The Gaudi device could not be reached for a moment.",
        "Start it once more; if it comes back, take another node.",
    ),
    known_failure(
        "14",
        "no_device",
        r"Failed to infer device type|No platform detected|Device string must not be empty",
        "This vLLM finds no device it was built for.",
        "Start it in the site's own environment, on a node with cards; for Gaudi the plugin must be installed there.",
    ),
    known_failure(
        "15",
        "scale_patching",
        r"is not supported for runtime scale patching",
        "The way this model's 8-bit scales are made cannot be patched at run time.",
        "Set RUNTIME_SCALE_PATCHING=0 for this server.",
        fix=other_environment(RUNTIME_SCALE_PATCHING="0"),
    ),
    known_failure(
        "16",
        "full_warm_up_broken",
        r"skip_guard_eval_unsafe|Recompilation triggered",
        "A shape came up that the full warm-up had promised not to see.",
        "Unset VLLM_FULL_WARMUP.",
        fix=other_environment(VLLM_FULL_WARMUP=None),
    ),
    known_failure(
        "17",
        "modules_not_numbers",
        r"invalid literal for int\(\) with base 10: 'all'",
        "HABANA_VISIBLE_MODULES holds the word `all`, and only numbers are read.",
        "Give module ids (`cards` of the server file), or unset the variable.",
        fix=other_environment(HABANA_VISIBLE_MODULES=None),
    ),
    known_failure(
        "18",
        "glibc_too_old",
        r"GLIBC_2\.\d+'? not found",
        "The system's C library is older than the environment needs: a login node, or the wrong image.",
        "Start it inside a job on a node of the partition.",
    ),
    known_failure(
        "19",
        "habana_logs",
        r"habana_logs.*Permission denied|Permission denied.*habana_logs",
        "Gaudi's software may not write its log folder.",
        "Set HABANA_LOGS to a folder of your own.",
        fix=other_environment(HABANA_LOGS="/tmp/habana_logs"),  # noqa: S108 - a place every node has
    ),
    known_failure(
        "63",
        "too_few_cpu_nodes",
        r"Not enough allowed NUMA nodes to bind threads of (?P<cards>\d+) local CPUWorkers",
        "The machine's processor cannot be shared by {cards} workers.",
        "Set `tensor_parallel_size: 1`, or bind the threads by hand (VLLM_CPU_OMP_THREADS_BIND).",
        fix=one_worker,
    ),
    known_failure(
        "68",
        "driver_too_old",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|no kernel image is available",
        "The node's driver, or its card, is older than what this vLLM was built for.",
        "Take another node, or an environment with a vLLM built for this driver and card.",
    ),
    known_failure(
        "69",
        "dtype_not_supported",
        r"[Bb]float16 is only supported on GPUs with compute capability of at least (?P<least>[\d.]+)",
        "This card is too old for the number format bfloat16: it begins with capability {least}.",
        "Set `dtype: float16`.",
        fix=half_precision,
    ),
    known_failure(
        "70",
        "cards_do_not_talk",
        r"NCCL error|nccl(?:System|UnhandledCuda|Internal|Remote)Error|HCCL.*(?:[Ee]rror|[Ff]ailed)",
        "The cards of this server could not talk to each other.",
        "Look at the first error of a worker; try another node, or fewer cards (`tensor_parallel_size`).",
    ),
    known_failure(
        "71",
        "too_few_cards",
        r"World size \((?P<cards>\d+)\) is larger than the number of available (?:GPUs|HPUs|devices) \((?P<most>\d+)\)",
        "The server wants {cards} cards and sees {most}.",
        "Ask for {cards} cards (`gres` of the site, `cards` of the server), or lower `tensor_parallel_size`.",
    ),
)


WEIGHTS = (
    known_failure(
        "29",
        "model_not_supported",
        r"Model architectures (?P<what>\[.*?\]) are not supported for now",
        "This vLLM does not know models of the kind {what}.",
        "Use an environment with a newer vLLM, or another model.",
    ),
    known_failure(
        "31",
        "transformers_too_old",
        r"Transformers does not recognize this architecture",
        "The environment's transformers is older than the model.",
        "Use an environment with newer transformers.",
    ),
    known_failure(
        "32",
        "tokenizers_too_old",
        r"untagged enum ModelWrapper",
        "The environment's tokenizers cannot read the model's tokenizer file.",
        "Use an environment with newer tokenizers.",
    ),
    known_failure(
        "33",
        "transformers_too_new",
        r"all_special_tokens_extended",
        "The environment's transformers is too new for its vLLM.",
        "Use an environment with transformers below 5, or a newer vLLM.",
    ),
    known_failure(
        "34",
        "own_code",
        r"requires you to execute the configuration file|trust_remote_code(?:=True|`)",
        "The model wants to run code that comes with its weights.",
        "Read that code; only if you trust it, set `trust_remote_code: true` under `vllm.args`.",
    ),
    known_failure(
        "36",
        "gated",
        r"Cannot access gated repo|access a gated repo|401 Client Error",
        "The hub does not let this account have the model.",
        "Accept its licence on the hub and set HF_TOKEN, or use a cached copy.",
    ),
    known_failure(
        "37",
        "not_cached",
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|couldn't connect to 'https://huggingface|"
        r"Cannot find an appropriate cached snapshot",
        "The model is not in the local cache, and the hub cannot be reached from here.",
        "Download it first on a machine with network into the same HF_HOME, then start again.",
    ),
    known_failure(
        "35",
        "no_such_model",
        r"HFValidationError|Invalid repository ID or local directory|Repo id must be",
        "The model is neither a folder on this machine nor a name that the hub could have.",
        "Check `model` in the server file; a folder of weights is given by its whole path.",
    ),
    known_failure(
        "39",
        "no_weights",
        r"Cannot find any model weights with [`'](?P<what>[^`']+)",
        "The model's folder {what} holds no weights: a download was not finished.",
        "Download it again; unfinished files of the cache end in `.incomplete`.",
    ),
    known_failure(
        "30",
        "class_not_loaded",
        r"failed to be inspected|Error in inspecting model architecture",
        "The model's code could not be loaded in this environment.",
        "Look at the error above this line in the log; mostly torch and vLLM, or a plugin, do not fit together.",
        part="late",
    ),
    known_failure(
        "38",
        "hub_silent",
        r"Error retrieving file list",
        "The hub does not answer.",
        "If the model is cached, set HF_HUB_OFFLINE=1; if not, download it where there is network.",
        part="late",
    ),
    known_failure(
        "-",
        "module_missing",
        r"No module named '?(?P<what>[\w.]+)'?",
        "The environment of the server lacks the module {what}.",
        "Install it there, or point `serve_command` at the right environment.",
        part="late",
    ),
    known_failure(
        "57",
        "weights_damaged",
        r"SafetensorError|Error while deserializing header|MetadataIncompleteBuffer",
        "A file of weights is cut off or no file of weights at all.",
        "Run `tautools model check` on it and fetch it again; a pointer of Git LFS is no file of weights.",
    ),
    known_failure(
        "58",
        "config_damaged",
        r"config file at '(?P<what>[^']+)' is not a valid JSON file",
        "The model's configuration {what} is damaged.",
        "Fetch it again with `tautools model fetch`.",
    ),
    known_failure(
        "59",
        "weights_of_another_model",
        r"weights were not initialized from checkpoint|There is no module or parameter named|size mismatch for|"
        r"start \(\d+\) \+ length \(\d+\) exceeds dimension size|Attempted to load weight",
        "The weights do not fit the model's configuration.",
        "Weights and config.json must come from one repository; fetch both anew.",
    ),
)


MACHINE = (
    known_failure(
        "41",
        "internal_port_in_use",
        r"EADDRINUSE|ZMQError: Address already in use|zmq\.error.*Address already in use",
        "Two servers chose the same port for talk among their own processes.",
        "Unset VLLM_PORT and start them one after the other.",
        fix=other_environment(VLLM_PORT=None, MASTER_PORT=None),
    ),
    known_failure(
        "40",
        "port_in_use",
        r"(?i)address already in use",
        "The port is taken by another process.",
        "Start it again without a fixed port, or stop what listens there.",
        fix=free_port,
    ),
    known_failure(
        "42",
        "vllm_port_set",
        r"VLLM_PORT\b.*appears to be a URI",
        "VLLM_PORT holds an address; it is a port number for vLLM's inner use.",
        "Unset VLLM_PORT.",
        fix=other_environment(VLLM_PORT=None),
    ),
    known_failure(
        "43",
        "socket_path_too_long",
        r"is longer than 10[78] characters|AF_UNIX path too long",
        "The folder for sockets has too long a name.",
        "Set VLLM_RPC_BASE_PATH to a short folder, such as /tmp.",
        fix=other_environment(VLLM_RPC_BASE_PATH="/tmp"),  # noqa: S108 - a place every node has
    ),
    known_failure(
        "45",
        "disk_full",
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free space, or set VLLM_CACHE_ROOT, TMPDIR and HF_HOME to a larger disk.",
    ),
    known_failure(
        "46",
        "stale_file",
        r"Stale file handle",
        "A file of the shared disk was replaced while it was open.",
        "Start it again; keep caches on a disk of the node.",
        part="late",
    ),
    known_failure(
        "60",
        "address_not_here",
        r"Cannot assign requested address",
        "The address that the server shall listen on is none of this machine's.",
        "Set `host` of the site to 0.0.0.0, 127.0.0.1, or an address that `ip addr` shows.",
    ),
    known_failure(
        "72",
        "too_many_files",
        r"Too many open files",
        "The server may not open so many files at once.",
        "Raise the limit with `ulimit -n` in the site's `activate` lines, or lower the concurrency.",
    ),
    known_failure(
        "73",
        "no_permission",
        r"\[Errno 13\]",
        "A file, folder or port may not be used by this user.",
        "See which one the line names; caches can be moved with VLLM_CACHE_ROOT and HF_HOME, ports start at 1024.",
        part="late",
    ),
    known_failure(
        "74",
        "command_missing",
        r"(?P<what>[\w./+-]+): command not found",
        "The command {what} is not there on the node.",
        "Name the environment that brings it: `modules`, `activate` and `serve_command` of the site.",
        part="late",
    ),
    known_failure(
        "75",
        "module_unknown",
        r"module\(s\) are unknown: (?P<what>.+)|Unable to locate a modulefile for '(?P<what2>[^']+)'",
        "The cluster has no module {what}.",
        "See `module avail`, and correct `modules` of the site.",
    ),
    known_failure(
        "76",
        "environment_unknown",
        r"EnvironmentNameNotFound: Could not find conda environment: (?P<what>\S+)|"
        r"Could not find conda environment: (?P<what2>\S+)|activate: No such file or directory",
        "The environment that the site activates is not there.",
        "See `mamba env list`, and correct `activate` of the site.",
    ),
    known_failure(
        "83",
        "name_not_known",
        r"Name or service not known|Temporary failure in name resolution|nodename nor servname provided",
        "A host name is not known on this machine.",
        "Correct `host` of the site when it is the server's own; else see whether the node has a network.",
        part="late",
    ),
)


JOBS = (
    known_failure(
        "48",
        "time_limit",
        r"DUE TO TIME LIMIT",
        "The job's time was up.",
        "Ask for more time, or let a successor take over before the end.",
    ),
    known_failure(
        "49",
        "not_associated",
        r"Invalid qos specification|Invalid account",
        "Slurm does not let this user use the account with the QOS.",
        "See what you may use (`sacctmgr show assoc user=$USER`), and correct `account` and `qos` in the site file.",
    ),
    known_failure(
        "50",
        "no_such_nodes",
        r"Requested node configuration is not available",
        "No node of the partition has what was asked for, or the partition wants a card in every request.",
        "Ask for fewer cards, cores or less memory, and name the card (`gres`) in the site file.",
    ),
    known_failure(
        "51",
        "unknown_gres",
        r"Invalid generic resource \(gres\) specification",
        "Slurm knows no such card.",
        "Take its name from `sinfo -o %G`, for `gres` in the site file.",
    ),
    known_failure(
        "52",
        "inherited_job_variables",
        r"SLURM_MEM_PER_CPU.*mutually exclusive|mutually exclusive.*SLURM_MEM_PER",
        "Variables of the job that this session runs in were taken for the new job.",
        "Submit without SLURM_*, SBATCH_* and SRUN_* variables, as `tautools` does by itself.",
    ),
    known_failure(
        "77",
        "preempted",
        r"DUE TO PREEMPTION",
        "The job had to make way for one of a higher priority.",
        "Start it again; a QOS or partition that is not preempted keeps it.",
    ),
    known_failure(
        "78",
        "node_failed",
        r"DUE TO NODE FAILURE",
        "The job's node failed.",
        "Start it again; `exclude` of the site leaves the node out.",
    ),
    known_failure(
        "79",
        "no_such_partition",
        r"[Ii]nvalid partition(?: name)? specified|User's group not permitted to use this partition",
        "There is no such partition, or this user may not use it.",
        "See `sinfo -o '%P %G %l'`, and correct `partition` in the site file.",
    ),
    known_failure(
        "80",
        "over_a_limit",
        r"Job violates accounting/QOS policy",
        "A limit of the account or the QOS forbids this job.",
        "Ask for fewer cards, cores, less memory or time; `sacctmgr show qos` and `show assoc` tell the limits.",
    ),
    known_failure(
        "81",
        "time_limit_refused",
        r"Requested time limit is invalid|Invalid --time specification",
        "The time limit is no time that Slurm reads, or more than the partition allows.",
        "Correct `time_limit` in the site file; `sinfo -o '%P %l'` tells the partition's.",
    ),
    known_failure(
        "82",
        "slurm_silent",
        r"Unable to contact slurm controller|Socket timed out on send/recv operation",
        "Slurm's controller did not answer.",
        "Try `sinfo`; submit again when it answers.",
    ),
)


CLIENT = (
    known_failure(
        "C1",
        "context_overflow",
        r"maximum context length is (?P<most>\d+)",
        "The conversation grew longer than the server's context of {most} tokens.",
        "Give the server a longer `max_model_len` if the model has it; the task counts as too long otherwise.",
        part="client",
    ),
    known_failure(
        "C2",
        "wrong_model_name",
        r"The model `?(?P<what>[^`]+?)`? does not exist",
        "The server does not serve a model named {what}.",
        "Use the name that `tautools server ls` shows.",
        part="client",
    ),
    known_failure(
        "C3",
        "server_gone",
        r"(?i)connection (?:was )?(?:closed|reset|refused|aborted)|server disconnected|broken pipe|connect call failed|"
        r"peer closed|EngineCore encountered an issue",
        "The connection ended and the server is not alive any more.",
        "Look at `tautools server ls`; start it again. The conversation is pending, it is no failure of the model.",
        part="client",
    ),
    known_failure(
        "C4",
        "tool_call_in_text",
        r"<tool_call>|<function=|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call|"
        r"\{\s*\"name\"\s*:\s*\"[^\"]+\"\s*,\s*\"(?:arguments|parameters)\"\s*:",
        "The model's tool call stands in the text: the server's parser is not this model's.",
        "Set another `tool_call_parser` in the server file.",
        part="client",
    ),
    known_failure(
        "C5",
        "only_thinking",
        r"^$",
        "The model spent all its tokens on thinking and said nothing.",
        "Switch thinking off (`chat_template_kwargs: {enable_thinking: false}`), or raise `max_tokens` of the role.",
        part="client",
    ),
    known_failure(
        "C6",
        "wrong_key",
        r"\bUnauthorized\b|(?i:invalid|incorrect) api key",
        "The server refuses the key.",
        "Use the server by its name, which finds its key; or set the variable that `api_key_env` names.",
        part="client",
    ),
    known_failure(
        "C7",
        "template_refuses",
        r"roles must alternate|System role not supported|TemplateError|chat template.*(?:rais|refus)",
        "The model's chat template refuses the conversation.",
        "Give a template that takes system and tool messages with `chat_template`, or another model.",
        part="client",
    ),
)
