"""Does the installed vLLM know these flags? Asked of its own `--help=all`, once per environment, before a start.

A start that ends with "unrecognized arguments" costs ten seconds here and minutes in a queue. The answer is kept under
`servers/flags/` by the command and the times of its files, so an upgraded environment is asked anew. Flags that every
vLLM has since 0.9 are not worth the question.
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
from tautools.params.nearest import did_you_mean
from tautools.server.vllm.gone_flags import gone_flag
from tautools.server.vllm.installed import packages_folders, versions_beside
from tautools.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KnownFlags", "check_flags", "installed_flags", "parse_help"]

_LOG = logging.getLogger(__name__)

_ALWAYS_THERE = {
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

_THERE_IN = {"0.32": {"default-chat-template-kwargs", "speculative-config"}}
"""Newer flags of our own server files, by the version whose help was read: most first starts need no question then."""

_OPTION = re.compile(r"^ {2}(-\S.*?)(?: {2,}|$)")
_CHOICES = re.compile(r" \{[^}]*\}.*")
_PARSERS = re.compile(r"--tool-call-parser \{([^}]*)\}")
_FEWEST = 5
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
    parsers = _PARSERS.search(text)
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
    kept = folder / f"{_key(command)}.json"
    try:
        told = json.loads(kept.read_text())
        return KnownFlags(frozenset(told["names"]), frozenset(told["tool_parsers"]))
    except (OSError, ValueError, KeyError, TypeError):
        _LOG.info("Asking %s for the flags it knows.", command[0])
    known = _ask(command, env)
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
    if set(asked) <= _ALWAYS_THERE | _there_in(command):
        return
    known = installed_flags(command, env=env, folder=folder)
    if known is None:
        return
    unknown = [name for name in asked if name.partition(".")[0] not in known.names]
    if unknown:
        version = versions_beside(command).get("vllm", "")
        flags = ", ".join(f"`--{name}`" for name in unknown)
        raise ParamsError(
            f"The installed vLLM{' ' if version else ''}{version} does not know {flags}.",
            evidence="\n".join(_why(name, known) for name in unknown),
            next_step=" ".join(_instead(name) for name in unknown),
        )
    _check_parser(words, known)


def _there_in(command: Sequence[str]) -> set[str]:
    version = versions_beside(command).get("vllm", "")
    return _THERE_IN.get(".".join(version.split(".")[:2]), set())


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


def _why(name: str, known: KnownFlags) -> str:
    gone = gone_flag(name)
    if gone is not None:
        return f"--{name}: {gone.why}."
    if name.startswith("no-") and name[3:] in known.names:
        return f"--{name}: `--{name[3:]}` has no form that switches it off; leave it out."
    return f"--{name}: not in its help.{did_you_mean(name, known.names)}"


def _instead(name: str) -> str:
    gone = gone_flag(name)
    return gone.instead if gone is not None else f"Correct or remove `{name.replace('-', '_')}` in the server file."


def _ask(command: Sequence[str], env: Mapping[str, str]) -> KnownFlags | None:
    """Ask new versions for everything, and older ones, which refuse the question, for their whole help."""
    for question in ("--help=all", "--help"):
        try:
            done = Shell().run([*command, question], timeout_s=180.0, env=env)
        except ShellError as error:
            _LOG.warning("Flags are not checked: %s", error)
            return None
        known = parse_help(done.stdout)
        if done.exit_code == 0 and len(known.names) >= _FEWEST and "port" in known.names:
            return known
    _LOG.warning("Flags are not checked: %s does not list them.", command[0])
    return None


def _key(command: Sequence[str]) -> str:
    """Return a name for this command with these files."""
    paths = [Path(shutil.which(command[0]) or command[0]), *(Path(word) for word in command[1:])]
    times = [f"{path}:{path.stat().st_mtime_ns}" for path in [*paths, *packages_folders(command)] if path.exists()]
    return hashlib.sha256(json.dumps([list(command), times]).encode()).hexdigest()[:24]
