"""Cartography's own pure functions, by name: they shape the rows, and are loaded when they are needed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

# Cartography's modules import each other in circles: threads that enter one at two places deadlock (seen).
_loading = threading.Lock()
_all: list[Transform] = []


def load_module(name: str) -> Any:
    """A module of Cartography; no two threads load one at the same time."""
    with _loading:
        return importlib.import_module(name)


class Transform:
    """A function `module:name` below `cartography.intel`. The first call loads it, if `load_transforms` has not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._function: Callable[..., Any] | None = None
        _all.append(self)

    def __call__(self, *arguments: Any) -> Any:
        return (self._function or self.load())(*arguments)

    def load(self) -> Callable[..., Any]:
        """Raises ImportError or AttributeError: this Cartography release has no such function."""
        name, _, attribute = f"cartography.intel.{self._path}".partition(":")
        found: Callable[..., Any] = getattr(load_module(name), attribute)
        self._function = found
        return found


def load_transforms() -> None:
    """Loads those of all modules that were imported; takes 2 s of CPU. Raises what `Transform.load` raises."""
    for each in _all:
        each.load()
