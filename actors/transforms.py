"""Cartography's own pure functions, by name: they shape the rows, and are loaded when they are needed."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

# Cartography's modules import each other in circles: threads that enter one at two places deadlock (seen).
_loading = threading.Lock()
_all: list[Transform] = []


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
        with _loading:
            if self._function is None:
                name, _, attribute = f"cartography.intel.{self._path}".partition(":")
                self._function = getattr(importlib.import_module(name), attribute)
            return self._function


def load_transforms() -> None:
    """Loads those of all modules that were imported; takes 2 s of CPU. Raises what `Transform.load` raises."""
    for each in _all:
        each.load()
