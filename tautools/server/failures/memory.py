"""Failures of memory: the card's, the KV cache's, the host's."""

from __future__ import annotations

from tautools.server.failures.fixes import length_from_log, no_swap, other_environment, share_that_is_free
from tautools.server.failures.row import Evidence, failure

__all__ = ["MEMORY"]

_KILLED = Evidence(exit_codes=frozenset({-9, 137}), job_states=frozenset({"OUT_OF_MEMORY"}))

MEMORY = (
    failure(
        "1",
        "no_memory_for_kv",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the KV cache.",
        "Raise `gpu_memory_utilization` or `tensor_parallel_size`, or lower `max_model_len` and `max_num_seqs`.",
    ),
    failure(
        "2",
        "kv_cache_too_small",
        r"To serve at least one request with the models?'?s? max seq len"
        r"(?: \((?P<asked>\d+)\))?(?:.*estimated maximum model length is (?P<most>\d+))?",
        "The KV cache cannot hold one request of max_model_len tokens.",
        "Lower `max_model_len`, raise `gpu_memory_utilization`, or spread the model over more cards.",
        fix=length_from_log,
    ),
    failure(
        "3",
        "kv_cache_too_small",
        r"max seq len \((?P<asked>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache "
        r"\((?P<most>\d+)\)|is larger than the maximum number of tokens that can be",
        "The KV cache cannot hold one request of max_model_len tokens.",
        "Lower `max_model_len`, raise `gpu_memory_utilization`, or spread the model over more cards.",
        fix=length_from_log,
    ),
    failure(
        "7",
        "card_held",
        r"Free memory on device.*?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\).*[Dd]esired",
        "Of the card's {total} GiB only {free} are free: another process holds it.",
        "Look at the cards with nvidia-smi, end your own stale process there or take another card; or ask "
        "for less with `gpu_memory_utilization`.",
        fix=share_that_is_free,
    ),
    failure(
        "61",
        "host_memory_held",
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired",
        "Of the {total} GiB of the machine's memory only {free} are free, and this server on the CPU wants more.",
        "Ask for less with `gpu_memory_utilization` (on the CPU it means the machine's memory), or end what holds it.",
        fix=share_that_is_free,
    ),
    failure(
        "62",
        "host_memory_for_kv",
        r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on kv cache allocation is less",
        "The KV cache that is asked for is more than the {free} GiB of memory that are free.",
        "Lower `kv_cache_memory_bytes` under `vllm.args`, or VLLM_CPU_KVCACHE_SPACE.",
    ),
    failure(
        "9",
        "out_of_memory",
        r"PT_DEVMEM Allocation failed",
        "The Gaudi card's memory is not enough.",
        "Use fewer or smaller buckets, more cards (`tensor_parallel_size`), and look for a stale process on the card.",
    ),
    failure(
        "10",
        "warm_up_out_of_memory",
        r"HPU out of memory occurred when warming up",
        "The warm-up's graphs did not fit into the card's memory.",
        "Keep more of it for graphs (VLLM_GRAPH_RESERVED_MEM), and warm up fewer shapes: lower `max_num_seqs` or the "
        "VLLM_*_BUCKET_MAX variables.",
        fix=other_environment(VLLM_GRAPH_RESERVED_MEM="0.2"),
    ),
    failure(
        "8",
        "out_of_memory",
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError",
        "The card's memory is not enough.",
        "Use more cards (`tensor_parallel_size`), a shorter `max_model_len`, fewer `max_num_seqs` or a smaller model; "
        "with a draft model, also a lower `gpu_memory_utilization`.",
    ),
    failure(
        "44",
        "swap_too_large",
        r"Too large swap space",
        "The swap space that this older vLLM sets aside is more than the host's memory allows.",
        "Set `swap_space: 0` under `vllm.args`, or ask for more memory of the host.",
        fix=no_swap,
    ),
    failure(
        "47",
        "host_out_of_memory",
        r"oom[_-]kill|Out of memory: Killed process|^(?:.*: line \d+: +\d+ )?Killed\b",
        "The host's memory ran out and the kernel ended the server.",
        "Ask for more memory (weights pass through it while they load), or load fewer models at a time.",
        evidence=_KILLED,
    ),
    failure(
        "84",
        "host_out_of_memory",
        r"exceeded memory limit \(\d+ > \d+\), being killed|Exceeded job memory limit",
        "The job took more memory than it had asked for, and Slurm ended it.",
        "Raise `memory_gib` in the site file: the weights pass through the node's memory.",
    ),
    failure(
        "53",
        "too_many_at_once",
        r"actual_blocks_needed.*exceeds total KV blocks|AssertionError:? .*req_id:|req_id:.*AssertionError",
        "More requests ran at a time than the KV cache has room for.",
        "Lower `concurrency` of the run, or `max_num_seqs`, to the maximum concurrency that the log prints at first.",
    ),
)
