"""The operator's modules under test: as they are, or one of them with a few lines changed."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = ("selfevo_core", "selfevo_operator")
"""What is imported anew when one module of it is changed."""


@dataclass(frozen=True, eq=False)
class System:
    """What the simulation needs of the operator."""

    cache: ModuleType
    queue: ModuleType
    controller: ModuleType
    kube: ModuleType
    pods: ModuleType


_MODULES = {
    "cache": "selfevo_operator.observed.cache",
    "queue": "selfevo_operator.runtime.queue",
    "controller": "selfevo_operator.controller",
    "kube": "selfevo_operator.api.kube",
    "pods": "selfevo_operator.manifests.settings",
}


class PatchError(Exception):
    """A change does not fit the source any more."""


@cache
def unchanged() -> System:
    """The operator as it is."""
    return _import()


def patched(module: str, old: str, new: str) -> tuple[str, str]:
    """The file of ``module``, and its source with ``old`` replaced by ``new``.

    Raises:
        PatchError: ``old`` is not there exactly once.
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    if source.count(old) != 1:
        raise PatchError(f"{module} has the text {old!r} {source.count(old)} times; it must be there once")
    return spec.origin, source.replace(old, new)


def changed(module: str, old: str, new: str) -> System:
    """The operator with ``old`` replaced by ``new`` in one of its modules; this process's own stays as it is.

    Raises:
        PatchError: ``old`` is not there exactly once.
    """
    origin, source = patched(module, old, new)
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}
    finder = _Finder(module, origin, source)
    sys.meta_path.insert(0, finder)
    try:
        return _import()
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        sys.modules.update(kept)


def _import() -> System:
    return System(**{name: importlib.import_module(module) for name, module in _MODULES.items()})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives one module another source."""

    def __init__(self, name: str, path: str, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=self._path)

    def get_source(self, fullname: str) -> str:
        return self._source
