"""A stand-in for GitHub: GraphQL, REST and its container registry, for two invented organizations.

Cartography takes an organization's URL now from GraphQL, now from the API's address, and now writes github.com; no
server on loopback can be right every time. So there are two: one says that it lives on github.com, and has actions,
commits and packages; the other says that it lives here, and has hooks, apps, tokens and alerts.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from providers.github_inventory import ORGANIZATIONS, Inventory, Listed
from providers.selection import execute
from providers.web_server import Answer, Request, Server, paged, serving

REGISTRY = "ghcr.io"  # Cartography has no option for it
PAGE_MAX = 2
_TOKEN = "not-a-token"


@contextlib.contextmanager
def start_github(folder: Path) -> Iterator[Server]:
    """`folder`: for the certificates."""
    inventories: dict[str, Inventory] = {}
    with serving(lambda request: _respond(request, inventories), [REGISTRY], folder) as server:
        for login in ORGANIZATIONS:
            inventories[login] = Inventory(login, server.url)
        yield server


def github_arguments(server: Server) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment with which Cartography syncs from the stand-in."""
    url = f"{server.url}/api/graphql"
    config = {"organization": [{"token": _TOKEN, "url": url, "name": login} for login in ORGANIZATIONS]}
    arguments = ["--github-config-env-var", "STANDIN_GITHUB", "--github-commit-lookback-days", "20000"]
    return (
        ["--selected-modules", "github", *arguments],
        {"STANDIN_GITHUB": base64.b64encode(json.dumps(config).encode()).decode(), **server.proxy()},
    )


def _respond(request: Request, inventories: Mapping[str, Inventory]) -> Answer:
    if request.path == "/api/graphql":
        asked = json.loads(request.body)
        variables = asked["variables"]
        variables = json.loads(variables) if isinstance(variables, str) else variables
        root = {"organization": _organization(inventories), "rateLimit": _RATE}
        return Answer({"data": execute(asked["query"], variables, root, request.left)})
    path = request.path.removeprefix("/api").removeprefix("/v3")
    if path == "/rate_limit":
        return Answer({"resources": {"core": _RATE, "graphql": _RATE}})
    if path == "/search/code":
        path = f"/search/code {request.query['q']}"
    for inventory in inventories.values():
        if path in inventory.rest:
            return _found(request, inventory.rest[path])
    return Answer({"message": "Not Found", "status": "404"}, 404)


_RATE = {"limit": 5_000, "cost": 1, "remaining": 4_999, "reset": 4_000_000_000, "resetAt": "2096-10-02T07:06:40Z"}


def _organization(inventories: Mapping[str, Inventory]) -> Callable[..., Any]:
    def organization(login: str) -> dict[str, Any] | None:
        return inventories[login].graph if login in inventories else None

    return organization


def _found(request: Request, value: object) -> Answer:
    if not isinstance(value, list | Listed):
        return Answer(value)
    items, headers = paged(request, value.items if isinstance(value, Listed) else value, PAGE_MAX, "page")
    body = {"total_count": len(request.left(value.items)), value.key: items} if isinstance(value, Listed) else items
    return Answer(body, 200, headers)
