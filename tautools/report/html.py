"""Pages that need nothing but themselves: no script, no font, no picture from anywhere else.

nbconvert's `basic` template gives the notebook's inside without the scripts that its full pages fetch; the page around
it is ours and reads in light and in dark.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tautools.report.opening import Opening

__all__ = ["front_page", "notebook_page", "page"]


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


def front_page(title: str, parts: Iterable[tuple[str, str, Opening]], *, foot: str = "") -> str:
    """Return the page that leads to the others: each part's heading, file and opening."""
    sections = (
        f'<h2><a href="{escape(file)}">{escape(heading)}</a></h2>\n{opening._repr_html_()}'
        for heading, file, opening in parts
    )
    return page(title, "\n".join([f"<h1>{escape(title)}</h1>", *sections]), foot=foot)
