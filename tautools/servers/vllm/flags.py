"""Which flags and parsers the installed vLLM has: asked of its own `--help=all`, once per environment, before a start.

A start that ends with "unrecognized arguments" costs ten seconds here and minutes in a queue. The answer is kept under
`servers/flags/` by the command and the times of its files, so an upgraded environment is asked again. Flags that every
vLLM has had since 0.9 are not worth the question. What is known beforehand stands in `flags.yaml`.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tautools.errors import ParamsError, ShellError, did_you_mean, unknown_name
from tautools.files import ensure_folder, packaged_yaml, write_atomic
from tautools.params.models import ServerParams
from tautools.servers.vllm.command import installed_versions, packages_folders
from tautools.shell import run_command

_LOG = logging.getLogger(__name__)

_OPTION = re.compile(r"^ {2}(-\S.*?)(?: {2,}|$)")
_CHOICES = re.compile(r" \{[^}]*\}.*")
_HELP_PARSERS = re.compile(r"--tool-call-parser \{([^}]*)\}")


class KnownFlags(BaseModel, frozen=True):
    """What one installed vLLM takes."""

    names: frozenset[str]
    """Flags without dashes in front, `no-` forms included."""
    tool_parsers: frozenset[str] = frozenset()
    """Empty when its help does not list them."""


@cache
def _table() -> dict[str, Any]:
    return dict(packaged_yaml(__package__, "flags.yaml"))


def tool_parser_of(model: str) -> str | None:
    """Return the parser of a model family's tool calls, by id, folder or served name; None for an unknown family."""
    families = _table()["tool_parsers"].items()
    return next((parser for pattern, parser in families if re.search(pattern, model, re.IGNORECASE)), None)


def first_release_of(model: str) -> str | None:
    """Return the model that is meant by one of the 2507 names that were never released; None for all others."""
    match = re.fullmatch(r"Qwen/Qwen3-(8B|14B|32B)-Instruct-2507", model)
    return f"Qwen/Qwen3-{match[1]}" if match else None


def deprecated_flags() -> dict[str, dict[str, str]]:
    """Return why a vLLM may not know a flag and what to write instead, as in `flags.yaml`; by name without dashes."""
    flags: dict[str, dict[str, str]] = _table()["deprecated"]
    return flags


def parse_help(text: str) -> KnownFlags:
    """Return the flags that a help text describes."""
    heads = [_CHOICES.sub("", match[1]) for line in text.splitlines() if (match := _OPTION.match(line))]
    forms = [form.split()[0] for head in heads for form in head.split(", ") if form.startswith("--")]
    parsers = _HELP_PARSERS.search(text)
    return KnownFlags(
        names=frozenset(form.lstrip("-") for form in forms),
        tool_parsers=frozenset(name.strip() for name in parsers[1].split(",")) if parsers else frozenset(),
    )


def installed_flags(command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> KnownFlags | None:
    """Return the flags of the vLLM that a command starts, kept in a folder; None when it cannot be asked."""
    paths = [Path(shutil.which(command[0]) or command[0]), *(Path(word) for word in command[1:])]
    times = [f"{path}:{path.stat().st_mtime_ns}" for path in [*paths, *packages_folders(command)] if path.exists()]
    path = folder / f"{hashlib.sha256(json.dumps([list(command), times]).encode()).hexdigest()[:24]}.json"
    try:
        return KnownFlags.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        _LOG.info("Asking %s for the flags it knows.", command[0])
    known = _ask_help(command, env)
    if known is not None:
        ensure_folder(folder)
        write_atomic(path, known.model_dump_json(indent=1))
    return known


def check_flags(argv: Sequence[str], *, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
    """Raise when a server's command line, which begins with `command`, holds what the installed vLLM does not take.

    The error has each unknown flag, why it is unknown where that is known, and what to write instead.
    """
    words = argv[len(command) :]
    asked = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    version = installed_versions(command).get("vllm", "")
    new = _table()["new_in"].get(".".join(version.split(".")[:2]), [])
    if set(asked) <= {*_table()["common"], *new}:
        return
    known = installed_flags(command, env=env, folder=folder)
    if known is None:
        return
    if unknown := {name: _unknown(name, known) for name in asked if name.partition(".")[0] not in known.names}:
        flags = ", ".join(f"`--{name}`" for name in unknown)
        raise ParamsError(
            f"The installed vLLM{' ' if version else ''}{version} does not know {flags}.",
            evidence="\n".join(why for why, _ in unknown.values()),
            next_step=" ".join(instead for _, instead in unknown.values()),
        )
    _check_parser(words, known)


def _check_parser(words: Sequence[str], known: KnownFlags) -> None:
    if "--tool-call-parser" not in words or not known.tool_parsers or "--tool-parser-plugin" in words:
        return
    asked = words[words.index("--tool-call-parser") + 1]
    if asked not in known.tool_parsers:
        names, set_one = sorted(known.tool_parsers), "Set one of these as `tool_call_parser` in the server file."
        raise unknown_name(ParamsError, "tool parser", asked, names, of="of the installed vLLM", next_step=set_one)


def _unknown(name: str, known: KnownFlags) -> tuple[str, str]:
    if gone := deprecated_flags().get(name):
        return f"--{name}: {gone['why']}.", gone["instead"]
    why = f"not in its help.{did_you_mean(name, known.names)}"
    if name.startswith("no-") and name[3:] in known.names:
        why = f"`--{name[3:]}` has no form that switches it off; leave it out."
    return f"--{name}: {why}", f"Correct or remove `{name.replace('-', '_')}` in the server file."


def _ask_help(command: Sequence[str], env: Mapping[str, str]) -> KnownFlags | None:
    """Ask new versions for everything, and older ones, which refuse the question, for their whole help."""
    for question in ("--help=all", "--help"):
        try:
            done = run_command([*command, question], timeout_s=180.0, env=env)
        except ShellError as error:
            _LOG.warning("Flags are not checked: %s", error)
            return None
        known = parse_help(done.stdout)
        # A text with fewer options is not the list of them.
        if done.exit_code == 0 and len(known.names) >= 5 and "port" in known.names:
            return known
    _LOG.warning("Flags are not checked: %s does not list them.", command[0])
    return None


def warnings_for(params: ServerParams) -> list[str]:
    """Return warnings about a server file, one sentence or two each."""
    if params.simulated:
        return []
    warnings = []
    if intended := first_release_of(params.model):
        warnings.append(
            f"The hub has no repository {params.model}: the 2507 release has no model of this size. "
            f"{intended} with `chat_template_kwargs: {{enable_thinking: false}}` is the nearest that exists "
            f"(server file `{intended.rpartition('/')[2].lower()}`)."
        )
    usual, parser = tool_parser_of(params.model), params.vllm.tool_call_parser
    if parser is None:
        name = f"`{usual}` for this family" if usual else "the model's card says which one"
        warnings.append(
            f"No `tool_call_parser` is set ({name}): every turn of the benchmark that uses tools is refused."
        )
    elif usual is not None and parser != usual:
        warnings.append(f"`tool_call_parser` is `{parser}`; models of this family mostly need `{usual}`.")
    if {"speculative_config", "speculative-config"} & set(params.vllm.args) and (
        params.vllm.gpu_memory_utilization or 0.9
    ) > 0.9:
        warnings.append(
            "Speculative decoding needs memory of its own: above 0.9 `gpu_memory_utilization` it may run out."
        )
    return warnings
