"""Reports as pages: HTML that needs no other file, the Markdown report, and how to open them from another machine.

nbconvert's `basic` template gives the notebook's inside without the scripts that its full pages fetch; the page around
it is ours and reads in light and in dark.
"""

from __future__ import annotations

import getpass
import shlex
import socket
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tautools.report.formatting import Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


def page(title: str, body: str, *, foot: str = "") -> str:
    """Return a whole page around `body`, which is HTML already."""
    css = (files("tautools.report") / "page.css").read_text(encoding="utf-8")
    closing = f'<p class="tau-foot">{escape(foot)}</p>' if foot else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{css}</style>\n</head>\n'
        f"<body>\n{body}\n{closing}\n</body>\n</html>\n"
    )


def notebook_page(notebook: Path, *, title: str, foot: str = "") -> str:
    """Return an executed notebook as one page: prose and results, no code, no widget state."""
    import nbformat
    from nbconvert import HTMLExporter

    # Widget state would draw an empty field without its scripts; without it the stored table is shown.
    node = nbformat.read(notebook, as_version=4)
    node.metadata.pop("widgets", None)
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
        anchor_link_text="",
    )
    body, _ = exporter.from_notebook_node(node)
    return page(title, body, foot=foot)


def front_page(title: str, parts: Iterable[tuple[str, str, Summary]], *, foot: str = "") -> str:
    """Return the page that leads to the others: each part's heading, file and summary."""
    sections = (
        f'<h2><a href="{escape(file)}">{escape(heading)}</a></h2>\n{summary._repr_html_()}'
        for heading, file, summary in parts
    )
    return page(title, "\n".join([f"<h1>{escape(title)}</h1>", *sections]), foot=foot)


def experiment_report(
    title: str, parts: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]], *, foot: str = ""
) -> str:
    """Return the whole report as Markdown.

    Each part has a heading, the content of its JSON file, and the names of its PNG files next to the report.
    """
    lines = [f"# {title}", ""]
    for heading, data, figures in parts:
        lines += [f"## {heading}", "", summary_of(data).to_markdown()]
        lines += [f"![{name.removesuffix('.png')}]({name})\n" for name in figures]
        lines += data["tables"]
    return "\n".join([*lines, foot, ""])


def summary_of(data: Mapping[str, Any]) -> Summary:
    """Return the summary that a report's JSON file holds."""
    first, second = data["summary"]
    return Summary(first, second, bool(data["simulated"]))


def how_to_open(page: Path, *, port: int = 8000) -> str:
    """Return the ways to open a page from a remote session: copying it, JupyterLab, a tunnel to a loopback server."""
    there = f"{getpass.getuser()}@{socket.gethostname()}"
    folder = shlex.quote(str(page.parent))
    source = shlex.quote(f"{there}:{page.parent}")
    return "\n".join(
        [
            "To open it:",
            f"  on this machine     {page.as_uri()}",
            f"  in JupyterLab       right click {page.name} in the file browser, Open in New Browser Tab",
            f"  copied to yours     scp -r {source} .",
            f"  through a tunnel    here:  python -m http.server {port} --bind 127.0.0.1 --directory {folder}",
            f"                      yours: ssh -L {port}:127.0.0.1:{port} {there}",
            f"                      then   http://127.0.0.1:{port}/{page.name}",
            "                      (while it runs, everyone who is logged in here can read that folder)",
        ]
    )
