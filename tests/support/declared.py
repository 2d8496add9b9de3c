"""A module as far as planning sees one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Declared:
    name: str
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    wrapped: bool = False
    once: bool = False
    late: bool = False
    cleans: bool = False
    brings: tuple[str, ...] = ()
