from pathlib import Path

WIKI = (Path(__file__).parent / "wiki.md").read_text()
