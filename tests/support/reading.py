"""Reads what functions of Cartography's do from their source, those that they call included."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


class Reader(ast.NodeVisitor):
    """Visits the statements of a function and, where `follow` is told to, of others of `packages`; each once."""

    packages: tuple[str, ...] = ("cartography.intel.",)

    def __init__(self) -> None:
        self._read: set[object] = set()
        self._globals: list[dict[str, Any]] = []

    def follow(self, function: Callable[..., Any]) -> None:
        function = inspect.unwrap(function)
        if function in self._read or not function.__module__.startswith(self.packages):
            return
        self._read.add(function)
        self._globals.append(function.__globals__)
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
        documented = ast.get_docstring(definition) is not None
        for statement in definition.body[documented:]:
            self.visit(statement)
        self._globals.pop()

    def named(self, node: ast.expr) -> Any:
        """What a dotted name means where it stands; None: nothing that is global."""
        first, *rest = ast.unparse(node).split(".")
        found = self._globals[-1].get(first)
        for name in rest:
            found = getattr(found, name, None)
        return found
