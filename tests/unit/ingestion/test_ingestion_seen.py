from __future__ import annotations

from ingestion.seen import Seen

OF, OTHER = ("run-1", "111111111111"), ("run-1", "222222222222")
A, AB = frozenset({"A"}), frozenset({"A", "B"})


def test_ids_are_known_by_label_whatever_schema_wrote_them() -> None:
    seen = Seen()
    seen.add(OF, (0, 1), A, ["x", "y"])
    seen.add(OF, (0, 2), AB, ["z", 5])
    seen.add(OTHER, (0, 3), A, ["other"])
    assert set(map(hash, ["x", "y", "z", 5])) == set(seen.hashes(OF, "A"))
    assert set(map(hash, ["z", 5])) == set(seen.hashes(OF, "B"))
    assert not seen.hashes(OF, "C")
    assert not seen.hashes(("run-2", OF[1]), "A")


def test_messages_that_were_not_seen_have_to_be_read() -> None:
    seen = Seen()
    seen.add(OF, (0, 1), A, ["x"])
    assert seen.unknown(OF, [(0, 1), (0, 2), (1, 1)]) == [(0, 2), (1, 1)]
    assert seen.unknown(OTHER, [(0, 1)]) == [(0, 1)]


def test_of_too_many_the_accounts_that_came_first_are_forgotten_as_a_whole() -> None:
    seen = Seen(ids_max=3)
    seen.add(OF, (0, 1), A, ["x", "y"])
    seen.add(OTHER, (0, 2), A, ["x", "y"])
    assert seen.unknown(OF, [(0, 1)]) == [(0, 1)]
    assert not seen.hashes(OF, "A")
    assert seen.unknown(OTHER, [(0, 2)]) == []
    seen.add(OTHER, (0, 3), A, ["x"] * 9)  # what an account needs at once stays, however much that is
    assert seen.unknown(OTHER, [(0, 2), (0, 3)]) == []
