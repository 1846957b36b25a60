"""Imports a package from a folder without touching what the process has imported.

Modules are kept beside `sys.modules`, their own `import` statements look there first, and nothing is put on `sys.path`.
So two checkouts of one package live side by side, an import in another thread never meets a stand-in, and what a
function of the package imports when it is called is found as well.
"""

from __future__ import annotations

import builtins
import threading
from importlib.machinery import SourceFileLoader
from importlib.util import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["PrivateImport"]


class PrivateImport:
    """The modules of one package, loaded from `root` when they are first asked for.

    Parameters
    ----------
    root : Path
        Folder that holds the package's folder.
    package : str
        Name of the package.
    in_place_of : mapping of str to module
        What its modules get when they import these names.
    """

    def __init__(self, root: Path, package: str, in_place_of: Mapping[str, ModuleType]) -> None:
        self._root = root
        self._package = package
        self._modules = dict(in_place_of)
        self._builtins = vars(builtins) | {"__import__": self._import}
        self._lock = threading.RLock()

    def module(self, name: str) -> ModuleType:
        """Return a module by its full name.

        Raises
        ------
        ModuleNotFoundError
            When the package has none of that name.
        """
        with self._lock:
            return self._modules.get(name) or self._load(name)

    def _load(self, name: str) -> ModuleType:
        above, _, last = name.rpartition(".")
        parent = self.module(above) if above else None
        folder = self._root.joinpath(*name.split("."))
        is_package = (folder / "__init__.py").is_file()
        file = folder / "__init__.py" if is_package else folder.with_suffix(".py")
        if not file.is_file():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = ModuleType(name)
        vars(module).update(
            {
                "__builtins__": self._builtins,
                "__file__": str(file),
                "__package__": name if is_package else above,
                **({"__path__": [str(folder)]} if is_package else {}),
            }
        )
        self._modules[name] = module
        try:
            code = SourceFileLoader(name, str(file)).get_code(name)
            exec(code or "", vars(module))  # noqa: S102 - this is what an import does
        except BaseException:
            del self._modules[name]
            raise
        if parent is not None:
            setattr(parent, last, module)
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        full = resolve_name("." * level + name, str((globals or {}).get("__package__"))) if level else name
        if not self._is_ours(full):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = self.module(full)
        for each in fromlist or ():
            if not hasattr(module, each) and hasattr(module, "__path__"):
                self._try(f"{full}.{each}")
        return module if fromlist else self.module(full.partition(".")[0])

    def _try(self, name: str) -> None:
        """Load a submodule that `from package import name` may mean; without one the statement itself complains."""
        try:
            self.module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise

    def _is_ours(self, name: str) -> bool:
        return name in self._modules or name.partition(".")[0] == self._package
