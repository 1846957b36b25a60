"""Failures of models: not there, not allowed, not understood."""

from __future__ import annotations

from tautools.server.failures.row import failure

__all__ = ["WEIGHTS"]

WEIGHTS = (
    failure(
        "29",
        "model_not_supported",
        r"Model architectures (?P<what>\[.*?\]) are not supported for now",
        "This vLLM does not know models of the kind {what}.",
        "Use an environment with a newer vLLM, or another model.",
    ),
    failure(
        "31",
        "transformers_too_old",
        r"Transformers does not recognize this architecture",
        "The environment's transformers is older than the model.",
        "Use an environment with newer transformers.",
    ),
    failure(
        "32",
        "tokenizers_too_old",
        r"untagged enum ModelWrapper",
        "The environment's tokenizers cannot read the model's tokenizer file.",
        "Use an environment with newer tokenizers.",
    ),
    failure(
        "33",
        "transformers_too_new",
        r"all_special_tokens_extended",
        "The environment's transformers is too new for its vLLM.",
        "Use an environment with transformers below 5, or a newer vLLM.",
    ),
    failure(
        "34",
        "own_code",
        r"requires you to execute the configuration file|trust_remote_code(?:=True|`)",
        "The model wants to run code that comes with its weights.",
        "Read that code; only if you trust it, set `trust_remote_code: true` under `vllm.args`.",
    ),
    failure(
        "36",
        "gated",
        r"Cannot access gated repo|access a gated repo|401 Client Error",
        "The hub does not let this account have the model.",
        "Accept its licence on the hub and set HF_TOKEN, or use a cached copy.",
    ),
    failure(
        "37",
        "not_cached",
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|couldn't connect to 'https://huggingface|"
        r"Cannot find an appropriate cached snapshot",
        "The model is not in the local cache, and the hub cannot be reached from here.",
        "Download it first on a machine with network into the same HF_HOME, then start again.",
    ),
    failure(
        "35",
        "no_such_model",
        r"HFValidationError|Invalid repository ID or local directory|Repo id must be",
        "The model is neither a folder on this machine nor a name that the hub could have.",
        "Check `model` in the server file; a folder of weights is given by its whole path.",
    ),
    failure(
        "39",
        "no_weights",
        r"Cannot find any model weights with [`'](?P<what>[^`']+)",
        "The model's folder {what} holds no weights: a download was not finished.",
        "Download it again; unfinished files of the cache end in `.incomplete`.",
    ),
    failure(
        "30",
        "class_not_loaded",
        r"failed to be inspected|Error in inspecting model architecture",
        "The model's code could not be loaded in this environment.",
        "Look at the error above this line in the log; mostly torch and vLLM, or a plugin, do not fit together.",
        part="late",
    ),
    failure(
        "38",
        "hub_silent",
        r"Error retrieving file list",
        "The hub does not answer.",
        "If the model is cached, set HF_HUB_OFFLINE=1; if not, download it where there is network.",
        part="late",
    ),
    failure(
        "-",
        "module_missing",
        r"No module named '?(?P<what>[\w.]+)'?",
        "The environment of the server lacks the module {what}.",
        "Install it there, or point `serve_command` at the right environment.",
        part="late",
    ),
    failure(
        "57",
        "weights_damaged",
        r"SafetensorError|Error while deserializing header|MetadataIncompleteBuffer",
        "A file of weights is cut off or no file of weights at all.",
        "Run `tautools model check` on it and fetch it again; a pointer of Git LFS is no file of weights.",
    ),
    failure(
        "58",
        "config_damaged",
        r"config file at '(?P<what>[^']+)' is not a valid JSON file",
        "The model's configuration {what} is damaged.",
        "Fetch it again with `tautools model fetch`.",
    ),
    failure(
        "59",
        "weights_of_another_model",
        r"weights were not initialized from checkpoint|There is no module or parameter named|size mismatch for|"
        r"start \(\d+\) \+ length \(\d+\) exceeds dimension size|Attempted to load weight",
        "The weights do not fit the model's configuration.",
        "Weights and config.json must come from one repository; fetch both anew.",
    ),
)
