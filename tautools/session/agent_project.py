"""A folder laid out the way people ran tau-bench before: scripts for Slurm, logs, results, a checkout of tau-bench."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AgentProject", "OldResults", "recognise"]

_SCRIPTS = {
    "assistant-server.sh": "tautools server up",
    "user-server.sh": "tautools server up",
    "user-vllm-job.sh": "tautools server up --site sol-gaudi",
    "tau-experiment.sh": "tautools sweep run sol-gaudi-120",
}
_FOLDERS = ("logs", "errors", "results", "tau-bench")
_RESULT = re.compile(r"num_trials-(\d+)\.json\Z")


@dataclass(frozen=True, slots=True)
class OldResults:
    """One file of results that tau-bench itself wrote."""

    path: Path
    env: str
    strategy: str
    model: str
    """The model's slug, such as `4B`."""
    num_trials: int


@dataclass(frozen=True, slots=True)
class AgentProject:
    """What was recognised in a folder."""

    folder: Path
    scripts: tuple[str, ...]
    tau_bench: Path | None
    """Checkout of tau-bench, when there is one."""
    results: tuple[OldResults, ...]
    logs: int
    """Files under logs/ and errors/."""

    def lines(self) -> list[str]:
        """Return in words what was found and how it maps to tautools."""
        lines = [f"{self.folder} is laid out like an agent-project. Nothing of it is changed."]
        lines += [f"  {script}: its work is done by `{_SCRIPTS[script]}`" for script in self.scripts]
        if self.tau_bench is not None:
            lines.append(f"  tau-bench/: the checkout for bench tau-bench, path {self.tau_bench}")
        if self.results:
            cells = {(each.env, each.strategy, each.model) for each in self.results}
            lines.append(
                f"  results/: {len(self.results)} num_trials files of {len(cells)} settings, to be adopted later"
            )
        if self.logs:
            lines.append(f"  logs/, errors/: {self.logs} files; those of tautools will lie beside them")
        return lines


def recognise(folder: Path) -> AgentProject | None:
    """Return what `folder` holds when it is laid out like an agent-project, else None. Only reads.

    At least one of the scripts must be there, and three of the eight parts in all.
    """
    scripts = tuple(name for name in _SCRIPTS if (folder / name).is_file())
    folders = [name for name in _FOLDERS if (folder / name).is_dir()]
    if not scripts or len(scripts) + len(folders) < 3:
        return None
    return AgentProject(
        folder=folder,
        scripts=scripts,
        tau_bench=_checkout(folder / "tau-bench"),
        results=tuple(_old_results(folder / "results")),
        logs=sum(1 for name in ("logs", "errors") if (folder / name).is_dir() for _ in (folder / name).iterdir()),
    )


def _checkout(folder: Path) -> Path | None:
    """Return the checkout: the folder that holds the package `tau_bench` (some nest it once more)."""
    for candidate in (folder, folder / "tau-bench"):
        if (candidate / "tau_bench").is_dir() or (candidate / "run.py").is_file():
            return candidate
    return None


def _old_results(folder: Path) -> list[OldResults]:
    found = []
    for path in sorted(folder.glob("*/*/*/num_trials-*.json")):
        match = _RESULT.search(path.name)
        ours = (path.parent / "setting.json").is_file()
        if match and not ours:
            env, strategy, model = path.relative_to(folder).parts[:3]
            found.append(OldResults(path, env, strategy, model, int(match[1])))
    return found
