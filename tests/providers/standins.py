"""Stand-ins of three providers' APIs on loopback, so that Cartography syncs from them unchanged, over real HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from providers.github_api import github_arguments, start_github
from providers.kubernetes_api import kubernetes_arguments, start_kubernetes
from providers.okta_api import okta_arguments, start_okta
from providers.web_server import Server

__all__ = ["PROVIDERS", "Provider", "start", "start_github", "start_kubernetes", "start_okta"]


@dataclass(frozen=True)
class Provider:
    """A provider that is stood in for: Cartography's command line and environment lead to it."""

    arguments: Sequence[str]
    variables: dict[str, str]
    server: Server


@contextlib.contextmanager
def _github(folder: Path) -> Iterator[Provider]:
    with start_github(folder) as server:
        yield Provider(*github_arguments(server), server)


@contextlib.contextmanager
def _kubernetes(folder: Path) -> Iterator[Provider]:
    with start_kubernetes() as server:
        yield Provider(*kubernetes_arguments(server, folder), server)


@contextlib.contextmanager
def _okta(folder: Path) -> Iterator[Provider]:
    with start_okta(folder) as server:
        yield Provider(*okta_arguments(server), server)


PROVIDERS: dict[str, Callable[[Path], AbstractContextManager[Provider]]] = {
    "github": _github,
    "kubernetes": _kubernetes,
    "okta": _okta,
}


def start(name: str, folder: Path) -> AbstractContextManager[Provider]:
    """The stand-in of the provider with Cartography's `name`; what it needs as files goes into `folder`."""
    return PROVIDERS[name](folder)
