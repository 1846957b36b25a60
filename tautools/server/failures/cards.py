"""Failures of cards, drivers and the split of a model over them."""

from __future__ import annotations

from tautools.server.failures.fixes import divisor_of_heads, half_precision, one_worker, other_environment
from tautools.server.failures.row import failure

__all__ = ["CARDS"]

CARDS = (
    failure(
        "5",
        "heads_not_divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size"
        r"(?: \((?P<cards>\d+)\))?",
        "The model's {heads} attention heads cannot be shared evenly by the cards.",
        "Choose a `tensor_parallel_size` that divides {heads}.",
        fix=divisor_of_heads,
    ),
    failure(
        "6",
        "not_divisible",
        r"(?:AssertionError:? ?)?(?P<size>\d+) is not divisible by (?P<cards>\d+)",
        "A part of the model of size {size} cannot be shared evenly by {cards} cards.",
        "Choose a smaller `tensor_parallel_size`, a power of two.",
    ),
    failure(
        "11",
        "card_held",
        r"Device acquire failed|synStatus=8\b",
        "The Gaudi card is taken, not visible, or not yet released by the server before.",
        "Look at the cards with hl-smi, wait until their memory is back, check the module ids, end "
        "your own stale processes; if it stays, take a fresh job.",
    ),
    failure(
        "12",
        "graph_compile_failed",
        r"synStatus=26\b|Graph compile failed",
        "Gaudi's compiler failed: driver and software of different versions, no GC_KERNEL_PATH, or a shape too large.",
        "Compare the versions of driver and environment, set GC_KERNEL_PATH as a login shell has it, or lower the "
        "prompt buckets (VLLM_PROMPT_*_BUCKET_MAX).",
    ),
    failure(
        "13",
        "device_hiccup",
        r"Unsupported device: the device type is 7",
        "The Gaudi device could not be reached for a moment.",
        "Start it once more; if it comes back, take another node.",
    ),
    failure(
        "14",
        "no_device",
        r"Failed to infer device type|No platform detected|Device string must not be empty",
        "This vLLM finds no device it was built for.",
        "Start it in the site's own environment, on a node with cards; for Gaudi the plugin must be installed there.",
    ),
    failure(
        "15",
        "scale_patching",
        r"is not supported for runtime scale patching",
        "The way this model's 8-bit scales are made cannot be patched at run time.",
        "Set RUNTIME_SCALE_PATCHING=0 for this server.",
        fix=other_environment(RUNTIME_SCALE_PATCHING="0"),
    ),
    failure(
        "16",
        "full_warm_up_broken",
        r"skip_guard_eval_unsafe|Recompilation triggered",
        "A shape came up that the full warm-up had promised not to see.",
        "Unset VLLM_FULL_WARMUP.",
        fix=other_environment(VLLM_FULL_WARMUP=None),
    ),
    failure(
        "17",
        "modules_not_numbers",
        r"invalid literal for int\(\) with base 10: 'all'",
        "HABANA_VISIBLE_MODULES holds the word `all`, and only numbers are read.",
        "Give module ids (`cards` of the server file), or unset the variable.",
        fix=other_environment(HABANA_VISIBLE_MODULES=None),
    ),
    failure(
        "18",
        "glibc_too_old",
        r"GLIBC_2\.\d+'? not found",
        "The system's C library is older than the environment needs: a login node, or the wrong image.",
        "Start it inside a job on a node of the partition.",
    ),
    failure(
        "19",
        "habana_logs",
        r"habana_logs.*Permission denied|Permission denied.*habana_logs",
        "Gaudi's software may not write its log folder.",
        "Set HABANA_LOGS to a folder of your own.",
        fix=other_environment(HABANA_LOGS="/tmp/habana_logs"),  # noqa: S108 - a place every node has
    ),
    failure(
        "63",
        "too_few_cpu_nodes",
        r"Not enough allowed NUMA nodes to bind threads of (?P<cards>\d+) local CPUWorkers",
        "The machine's processor cannot be shared by {cards} workers.",
        "Set `tensor_parallel_size: 1`, or bind the threads by hand (VLLM_CPU_OMP_THREADS_BIND).",
        fix=one_worker,
    ),
    failure(
        "68",
        "driver_too_old",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|no kernel image is available",
        "The node's driver, or its card, is older than what this vLLM was built for.",
        "Take another node, or an environment with a vLLM built for this driver and card.",
    ),
    failure(
        "69",
        "dtype_not_supported",
        r"[Bb]float16 is only supported on GPUs with compute capability of at least (?P<least>[\d.]+)",
        "This card is too old for the number format bfloat16: it begins with capability {least}.",
        "Set `dtype: float16`.",
        fix=half_precision,
    ),
    failure(
        "70",
        "cards_do_not_talk",
        r"NCCL error|nccl(?:System|UnhandledCuda|Internal|Remote)Error|HCCL.*(?:[Ee]rror|[Ff]ailed)",
        "The cards of this server could not talk to each other.",
        "Look at the first error of a worker; try another node, or fewer cards (`tensor_parallel_size`).",
    ),
    failure(
        "71",
        "too_few_cards",
        r"World size \((?P<cards>\d+)\) is larger than the number of available (?:GPUs|HPUs|devices) \((?P<most>\d+)\)",
        "The server wants {cards} cards and sees {most}.",
        "Ask for {cards} cards (`gres` of the site, `cards` of the server), or lower `tensor_parallel_size`.",
    ),
)
