"""Which flags and parsers the installed vLLM has: asked of its own `--help=all`, once per environment, before a start.

A start that ends with "unrecognized arguments" costs ten seconds here and minutes in a queue. The answer is kept under
`servers/flags/` by the command and the times of its files, so an upgraded environment is asked again. Flags that every
vLLM has had since 0.9 are not worth the question.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import ParamsError, ShellError
from tautools.files import ensure_folder, write_atomic
from tautools.params.find import did_you_mean
from tautools.servers.vllm.command import installed_versions, packages_folders
from tautools.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# The first pattern that fits counts. Names of parsers are vLLM's.
_PARSER_FAMILIES = (
    (r"qwen3(-coder|\.[5-9])", "qwen3_xml"),
    (r"qwen|hermes|qwq|orchestrator", "hermes"),
    (r"gpt-oss", "openai"),
    (r"llama-?4", "llama4_pythonic"),
    (r"llama-?3", "llama3_json"),
    (r"mistral|mixtral|ministral|magistral", "mistral"),
    (r"deepseek-v3\.1", "deepseek_v31"),
    (r"deepseek-v3", "deepseek_v3"),
    (r"glm-4\.[56]", "glm45"),
    (r"kimi-k2", "kimi_k2"),
    (r"granite-?4", "granite4"),
    (r"granite", "granite"),
    (r"phi-?4-mini", "phi4_mini_json"),
    (r"xlam", "xlam"),
    (r"olmo-?3", "olmo3"),
)

_NEVER_RELEASED = re.compile(r"Qwen/Qwen3-(8B|14B|32B)-Instruct-2507")


def tool_parser_of(model: str) -> str | None:
    """Return the name of the parser that reads the tool calls of a model's family; None when it is not known.

    Parameters
    ----------
    model : str
        Hub id, folder or served name.
    """
    return next((parser for pattern, parser in _PARSER_FAMILIES if re.search(pattern, model, re.IGNORECASE)), None)


def first_release_of(model: str) -> str | None:
    """Return the model that is meant by one of the 2507 names that were never released; None for all others."""
    found = _NEVER_RELEASED.fullmatch(model)
    return f"Qwen/Qwen3-{found[1]}" if found else None


@dataclass(frozen=True, slots=True)
class DeprecatedFlag:
    """One flag: why this vLLM may not know it, and what to write instead."""

    name: str
    why: str
    instead: str
    renamed: str = ""
    """The flag that takes the same value, as a name under `vllm.args`; empty where none does."""


_ONLY_IN_FORK = "Only Habana's fork of vLLM 0.9 has it"
_ONLY_IN_V0 = "It belonged to the engine before V1, which is gone"

DEPRECATED_FLAGS = (
    DeprecatedFlag(
        "enable-reasoning", "It was removed in vLLM 0.10", "Set `reasoning_parser`; that alone switches it on."
    ),
    DeprecatedFlag(
        "disable-log-requests",
        "Requests are not logged any more unless asked for",
        "Leave it out; `enable_log_requests: true` is the opposite.",
    ),
    DeprecatedFlag(
        "chat-template-kwargs",
        "It never was an option of the server under this name",
        "Use `chat_template_kwargs` of the server file (`--default-chat-template-kwargs`), or for versions without it "
        "`extra_body: {chat_template_kwargs: {enable_thinking: false}}` of the role.",
        renamed="default_chat_template_kwargs",
    ),
    DeprecatedFlag(
        "default-chat-template-kwargs",
        "This vLLM is too old for it",
        "Remove `chat_template_kwargs` from the server file and give it per request: "
        "`extra_body: {chat_template_kwargs: {enable_thinking: false}}` of the role; Qwen3 also reads `/no_think`.",
    ),
    DeprecatedFlag(
        "device",
        f"{_ONLY_IN_FORK}; elsewhere the installed platform decides",
        "Leave it out, and install the right build.",
    ),
    DeprecatedFlag(
        "use-padding-aware-scheduling", _ONLY_IN_FORK, "Leave it out; the Gaudi plugin pads by its buckets."
    ),
    DeprecatedFlag("num-scheduler-steps", f"{_ONLY_IN_FORK}. {_ONLY_IN_V0}", "Leave it out."),
    DeprecatedFlag("multi-step-stream-outputs", _ONLY_IN_V0, "Leave it out."),
    DeprecatedFlag(
        "swap-space",
        f"{_ONLY_IN_FORK}. {_ONLY_IN_V0}",
        "Leave it out; requests that do not fit are computed again.",
    ),
    DeprecatedFlag("use-v2-block-manager", _ONLY_IN_V0, "Leave it out."),
    DeprecatedFlag("preemption-mode", _ONLY_IN_V0, "Leave it out."),
    DeprecatedFlag("max-seq-len-to-capture", _ONLY_IN_V0, "Leave it out, or set `max_cudagraph_capture_size`."),
    DeprecatedFlag("worker-use-ray", "It has another name now", "Use `distributed_executor_backend: ray`."),
    DeprecatedFlag(
        "speculative-model",
        "Drafting is one option now",
        "Use `speculative_config: {model: …, num_speculative_tokens: …}`.",
    ),
    DeprecatedFlag(
        "num-speculative-tokens",
        "Drafting is one option now",
        "Use `speculative_config: {method: …, num_speculative_tokens: …}`.",
    ),
    DeprecatedFlag(
        "guided-decoding-backend",
        "It has another name now",
        "Use `structured_outputs_config: {backend: …}`.",
    ),
    DeprecatedFlag(
        "rope-scaling", "It moved into the model's configuration", "Use `hf_overrides: {rope_scaling: {…}}`."
    ),
    DeprecatedFlag("task", "What a server does is told otherwise now", "Leave it out for chat; others use `runner`."),
    DeprecatedFlag(
        "tool-strict-level",
        "This vLLM is too old for it",
        "Leave it out; arguments of forced calls are then not held to their schema.",
    ),
)


def deprecated_flag(flag: str) -> DeprecatedFlag | None:
    """Return what is known of a flag that a vLLM refuses, written with or without dashes or underscores."""
    plain = flag.lstrip("-").replace("_", "-")
    return next((each for each in DEPRECATED_FLAGS if each.name == plain), None)


_LOG = logging.getLogger(__name__)

_COMMON_FLAGS = {
    "host",
    "port",
    "served-model-name",
    "max-model-len",
    "tensor-parallel-size",
    "gpu-memory-utilization",
    "max-num-seqs",
    "dtype",
    "enable-auto-tool-choice",
    "tool-call-parser",
    "reasoning-parser",
    "chat-template",
    "enforce-eager",
    "download-dir",
    "enable-prefix-caching",
    "generation-config",
    "kv-cache-dtype",
    "load-format",
    "max-num-batched-tokens",
    "quantization",
    "revision",
    "seed",
    "tokenizer",
    "trust-remote-code",
}

_NEW_IN_VERSION = {"0.32": {"default-chat-template-kwargs", "speculative-config"}}
"""Newer flags of our own server files, by the version whose help was read: most first starts need no question then."""

_OPTION = re.compile(r"^ {2}(-\S.*?)(?: {2,}|$)")
_CHOICES = re.compile(r" \{[^}]*\}.*")
_HELP_PARSERS = re.compile(r"--tool-call-parser \{([^}]*)\}")
_MIN_OPTIONS = 5
"""A help text with fewer options is not the list of them."""


@dataclass(frozen=True, slots=True)
class KnownFlags:
    """What one installed vLLM takes."""

    names: frozenset[str]
    """Flags without dashes in front, `no-` forms included."""
    tool_parsers: frozenset[str] = frozenset()
    """Empty when its help does not list them."""


def parse_help(text: str) -> KnownFlags:
    """Return the flags that a help text describes."""
    heads = [_CHOICES.sub("", found[1]) for line in text.splitlines() if (found := _OPTION.match(line))]
    forms = [form.split()[0] for head in heads for form in head.split(", ") if form.startswith("--")]
    parsers = _HELP_PARSERS.search(text)
    return KnownFlags(
        frozenset(form.lstrip("-") for form in forms),
        frozenset(name.strip() for name in parsers[1].split(",")) if parsers else frozenset(),
    )


def installed_flags(command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> KnownFlags | None:
    """Return the flags of the vLLM that a command starts; None when it does not tell.

    Parameters
    ----------
    command : sequence of str
        What starts the server, such as `["/opt/vllm/bin/vllm", "serve"]`.
    env : mapping
        The environment it is asked in.
    folder : Path
        Where the answers are kept.
    """
    kept = folder / f"{_cache_key(command)}.json"
    try:
        told = json.loads(kept.read_text())
        return KnownFlags(frozenset(told["names"]), frozenset(told["tool_parsers"]))
    except (OSError, ValueError, KeyError, TypeError):
        _LOG.info("Asking %s for the flags it knows.", command[0])
    known = _ask_help(command, env)
    if known is not None:
        told = {"command": list(command), "names": sorted(known.names), "tool_parsers": sorted(known.tool_parsers)}
        ensure_folder(folder)
        write_atomic(kept, json.dumps(told, indent=1))
    return known


def check_flags(argv: Sequence[str], *, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
    """Raise when a server's command line holds what the installed vLLM does not take.

    Parameters
    ----------
    argv : sequence of str
        The whole command line, which begins with `command`.
    command, env, folder
        See `installed_flags`.

    Raises
    ------
    ParamsError
        With each unknown flag, why it is unknown where that is known, and what to write instead.
    """
    words = argv[len(command) :]
    asked = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    if set(asked) <= _COMMON_FLAGS | _new_in_version(command):
        return
    known = installed_flags(command, env=env, folder=folder)
    if known is None:
        return
    unknown = [name for name in asked if name.partition(".")[0] not in known.names]
    if unknown:
        version = installed_versions(command).get("vllm", "")
        flags = ", ".join(f"`--{name}`" for name in unknown)
        raise ParamsError(
            f"The installed vLLM{' ' if version else ''}{version} does not know {flags}.",
            evidence="\n".join(_why_unknown(name, known) for name in unknown),
            next_step=" ".join(_use_instead(name) for name in unknown),
        )
    _check_parser(words, known)


def _new_in_version(command: Sequence[str]) -> set[str]:
    version = installed_versions(command).get("vllm", "")
    return _NEW_IN_VERSION.get(".".join(version.split(".")[:2]), set())


def _check_parser(words: Sequence[str], known: KnownFlags) -> None:
    if "--tool-call-parser" not in words or not known.tool_parsers or "--tool-parser-plugin" in words:
        return
    asked = words[words.index("--tool-call-parser") + 1]
    if asked not in known.tool_parsers:
        raise ParamsError(
            f"The installed vLLM has no tool parser named {asked!r}.{did_you_mean(asked, known.tool_parsers)}",
            evidence=", ".join(sorted(known.tool_parsers)),
            next_step="Set one of these as `tool_call_parser` in the server file.",
        )


def _why_unknown(name: str, known: KnownFlags) -> str:
    gone = deprecated_flag(name)
    if gone is not None:
        return f"--{name}: {gone.why}."
    if name.startswith("no-") and name[3:] in known.names:
        return f"--{name}: `--{name[3:]}` has no form that switches it off; leave it out."
    return f"--{name}: not in its help.{did_you_mean(name, known.names)}"


def _use_instead(name: str) -> str:
    gone = deprecated_flag(name)
    return gone.instead if gone is not None else f"Correct or remove `{name.replace('-', '_')}` in the server file."


def _ask_help(command: Sequence[str], env: Mapping[str, str]) -> KnownFlags | None:
    """Ask new versions for everything, and older ones, which refuse the question, for their whole help."""
    for question in ("--help=all", "--help"):
        try:
            done = Shell().run([*command, question], timeout_s=180.0, env=env)
        except ShellError as error:
            _LOG.warning("Flags are not checked: %s", error)
            return None
        known = parse_help(done.stdout)
        if done.exit_code == 0 and len(known.names) >= _MIN_OPTIONS and "port" in known.names:
            return known
    _LOG.warning("Flags are not checked: %s does not list them.", command[0])
    return None


def _cache_key(command: Sequence[str]) -> str:
    """Return a name for this command with these files."""
    paths = [Path(shutil.which(command[0]) or command[0]), *(Path(word) for word in command[1:])]
    times = [f"{path}:{path.stat().st_mtime_ns}" for path in [*paths, *packages_folders(command)] if path.exists()]
    return hashlib.sha256(json.dumps([list(command), times]).encode()).hexdigest()[:24]
