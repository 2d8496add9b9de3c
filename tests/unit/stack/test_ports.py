from __future__ import annotations

import itertools
import socket

from cartoray.stack import ports


def _choose(
    wanted: dict[str, int], kept: dict[str, int], busy: set[int], taken: tuple[int, ...] = ()
) -> dict[str, int]:
    free = itertools.count(50_000)
    return dict(ports.choose(wanted, kept, taken, is_free=lambda port: port not in busy, any_free=lambda: next(free)))


def test_the_wanted_port_is_taken_when_it_is_free() -> None:
    assert _choose({"client": 9092}, {}, set()) == {"client": 9092}


def test_the_port_of_the_last_start_goes_before_the_wanted_one() -> None:
    assert _choose({"client": 9092}, {"client": 41_000}, set()) == {"client": 41_000}
    assert _choose({"client": 9092}, {"client": 41_000}, {41_000}) == {"client": 9092}


def test_any_free_port_will_do_when_both_are_busy() -> None:
    assert _choose({"client": 9092}, {"client": 41_000}, {9092, 41_000}) == {"client": 50_000}


def test_no_port_is_given_out_twice() -> None:
    assert _choose({"client": 9092, "controller": 9092}, {}, set()) == {"client": 9092, "controller": 50_000}
    assert _choose({"client": 9092}, {}, set(), taken=(9092, 50_000)) == {"client": 50_001}


def test_a_port_that_someone_listens_on_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ports.is_free(port)
    assert ports.is_free(port)
