"""Log lines: one a unit of work, `event name=value …`, on standard error."""

from __future__ import annotations

import logging
from collections.abc import Callable

PACKAGES = ("cartoray", "actors", "ingestion")


class _Formatter(logging.Formatter):
    """Tracebacks, too, go through `hide`."""

    def __init__(self, form: str, hide: Callable[[str], str]) -> None:
        super().__init__(form)
        self._hide = hide

    def format(self, record: logging.LogRecord) -> str:
        return self._hide(super().format(record))


def log_to_stderr(form: str, hide: Callable[[str], str]) -> None:
    """Shows what our packages tell, and of the libraries only warnings; all of it as `hide` leaves it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(form, hide))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
