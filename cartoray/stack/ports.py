"""Which TCP port a server gets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping

from cartoray.stack.launch import LOOPBACK, Ports


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback address now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one just closed is free
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A port that nobody listens on. Another process may still take it before it is used."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def choose(
    wanted: Ports,
    kept: Ports,
    taken: Collection[int] = (),
    *,
    is_free: Callable[[int], bool] = is_free,
    any_free: Callable[[], int] = any_free,
) -> Mapping[str, int]:
    """A port for each role in `wanted`: the one `kept` from the last start, else the one wanted, else any free one.

    None of them is in `taken`, which other servers of the stack have been given but may not listen on yet.
    """
    chosen: dict[str, int] = {}
    for role, preferred in wanted.items():
        used = {*taken, *chosen.values()}
        candidates = [port for port in (kept.get(role, 0), preferred) if port and port not in used]
        port = next((port for port in candidates if is_free(port)), 0)
        while not port or port in used:
            port = any_free()
        chosen[role] = port
    return chosen
