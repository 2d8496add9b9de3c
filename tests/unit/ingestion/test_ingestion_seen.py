from __future__ import annotations

from ingestion.seen import Seen

OF, OTHER = ("run-1", "111111111111"), ("run-1", "222222222222")


def test_ids_are_known_by_run_and_account() -> None:
    seen = Seen()
    seen.add(OF, (0, 1), ["x", "y"])
    seen.add(OF, (0, 2), ["z", 5])
    seen.add(OTHER, (0, 3), ["other"])
    assert set(map(hash, ["x", "y", "z", 5])) == set(seen.hashes(OF))
    assert not seen.hashes(("run-2", OF[1]))


def test_messages_that_were_not_seen_have_to_be_read() -> None:
    seen = Seen()
    seen.begin(OTHER)
    seen.add(OF, (0, 1), ["x"])
    assert seen.unknown(OF, [(0, 1), (0, 2), (1, 1)]) == [(0, 2), (1, 1)]
    assert seen.unknown(OTHER, [(0, 1)]) == [(0, 1)]
    assert OTHER in seen


def test_of_too_many_the_accounts_that_came_first_are_forgotten_as_a_whole() -> None:
    seen = Seen(ids_max=60)
    seen.add(OF, (0, 1), ["x", "y"])
    seen.add(OTHER, (0, 2), ["x", "y"])
    assert OF in seen
    seen.add(OTHER, (0, 3), ["z"])
    assert OF not in seen
    assert seen.unknown(OF, [(0, 1)]) == [(0, 1)]
    assert not seen.hashes(OF)
    seen.add(OTHER, (0, 4), ["x"] * 90)  # what an account needs at once stays, however much that is
    assert seen.unknown(OTHER, [(0, 2), (0, 3), (0, 4)]) == []
