"""docs/api.md is made of the verbs' own docstrings: `python tests/support/api_page.py > docs/api.md`."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from inspect import Parameter
from typing import Any

import tautools

COMMANDS = {
    "launch": ("server up",),
    "verify": ("server verify",),
    "servers": ("server ls",),
    "run": ("run", "sweep run"),
    "plan": ("sweep plan",),
    "status": ("sweep status",),
    "report": ("report",),
    "import_results": ("import",),
    "show": ("show",),
    "doctor": ("doctor",),
}
HEAD = """\
# The Python API

`import tautools as tt` offers the verbs of the command line, for notebooks and scripts. Nothing else happens at import;
a verb loads when it is used.

```python
import tautools as tt

servers = tt.launch("sim-large", "sim-user").wait_ready()     # start and verify; simulated models need no GPU
tt.run(env="retail", strategy="fc", server="sim-large", user_server="sim-user", limit=2)
tt.show(env="retail", task="0")                               # one conversation, expected beside actual actions
tt.report()                                                   # HTML, Markdown and JSON under reports/
servers.stop()
```

`examples/hello.py` is the same as a program. Servers, sites and sweeps are given by name or path. The workspace is a
folder that exists: the argument, else the variable `TAUTOOLS_WORKSPACE`, else the current folder. Wrong input ends in a
`TautoolsError` before any work; it says what is wrong, what was seen and what to do next.

| Verb | What it does | Command line |
|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    verbs = {name: getattr(tautools, name) for name in COMMANDS}
    rows = []
    for name, verb in verbs.items():
        commands = ", ".join(f"`tautools {command}`" for command in COMMANDS[name])
        rows.append(f"| [`tt.{name}`](#tt{name}) | {_doc(verb).splitlines()[0]} | {commands} |")
    return HEAD + "\n".join(rows) + "\n" + "".join(_chapter(name, verb) for name, verb in verbs.items())


def _doc(verb: Any) -> str:
    return inspect.getdoc(verb) or ""


def _chapter(name: str, verb: Any) -> str:
    call = textwrap.fill(f"tt.{name}({', '.join(_arguments(verb))})", 110, subsequent_indent="    ")
    return f"\n## tt.{name}\n\n```python\n{call}\n```\n\n" + "\n".join(_body(_doc(verb))).rstrip() + "\n"


def _arguments(verb: Any) -> Iterator[str]:
    stars = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
    by_name = False
    for each in inspect.signature(verb).parameters.values():
        if each.kind is Parameter.KEYWORD_ONLY and not by_name:
            yield "*"
        by_name = by_name or each.kind in {Parameter.KEYWORD_ONLY, Parameter.VAR_POSITIONAL}
        default = "" if each.default is Parameter.empty else f"={each.default!r}"
        yield f"{stars.get(each.kind, '')}{each.name}{default}"


def _body(doc: str) -> Iterator[str]:
    """Yield a numpy docstring as Markdown: sections become lists, examples code."""
    section = ""
    for block in doc.split("\n\n"):
        lines = block.split("\n")
        if len(lines) > 1 and set(lines[1]) == {"-"}:
            section, lines = lines[0], lines[2:]
            if section in {"Returns", "Raises"}:
                yield f"{section}:\n"
        if section == "Examples":
            yield "```python"
            yield from (line.removeprefix(">>> ").replace("  # doctest: +SKIP", "") for line in lines)
            yield "```"
        else:
            yield from _items(lines) if section else lines
        yield ""


def _items(lines: list[str]) -> Iterator[str]:
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith(" "):
            entries[-1][1].append(line.strip())
        else:
            entries.append((line, []))
    for head, text in entries:
        name, colon, kind = head.partition(" : ")
        yield f"- `{name}`{f' ({kind})' if colon else ''}: {' '.join(text)}"


if __name__ == "__main__":
    sys.stdout.write(page())
