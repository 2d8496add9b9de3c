"""Log lines: one a unit of work, `event name=value …`, on standard error."""

from __future__ import annotations

import logging

PACKAGES = ("cartoray", "actors", "ingestion")


def log_to_stderr(form: str) -> None:
    """Shows what our packages tell, and of the libraries only warnings."""
    logging.basicConfig(level=logging.WARNING, format=form, force=True)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
