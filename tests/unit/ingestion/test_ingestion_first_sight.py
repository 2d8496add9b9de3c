from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingestion.first_sight import RUNS_MAX, FirstSight

FIRST, SECOND = ("run-1", 1), ("run-2", 2)


def test_a_label_is_new_when_it_had_no_nodes_as_the_run_began() -> None:
    sight = FirstSight()
    assert not sight.is_new(FIRST, "A")
    sight.begin(FIRST, {"B"})
    assert sight.is_new(FIRST, "A")
    assert not sight.is_new(FIRST, "B")
    assert not sight.is_new(SECOND, "A")


def test_what_a_run_writes_is_old_to_the_others_alone() -> None:
    sight = FirstSight()
    sight.begin(FIRST, ())
    sight.begin(SECOND, ())
    sight.wrote(FIRST, {"A"})
    assert sight.is_new(FIRST, "A")
    assert not sight.is_new(SECOND, "A")
    sight.ran("run-1")
    assert SECOND not in sight
    assert sight.is_new(FIRST, "A")


def test_so_many_runs_are_remembered() -> None:
    sight = FirstSight()
    for number in range(RUNS_MAX + 1):
        sight.begin((f"run-{number}", number), ())
    assert not sight.is_new(("run-0", 0), "A")
    assert sight.is_new(("run-1", 1), "A")


RUNS = [("run-1", 1), ("run-2", 2), ("run-3", 3)]
LABELS = ["A", "B"]
acts = st.tuples(st.sampled_from(["begin", "wrote", "query"]), st.sampled_from(RUNS), st.sampled_from(LABELS))


@given(st.lists(acts, max_size=30))
def test_a_new_label_has_nodes_of_its_run_alone(history: list[tuple[str, tuple[str, int], str]]) -> None:
    """Against a graph that remembers who wrote what: never new where another run's nodes are."""
    sight = FirstSight()
    graph: dict[str, set[tuple[str, int]]] = {label: set() for label in LABELS}
    for act, run, label in history:
        match act:
            case "begin" if run not in sight:
                sight.begin(run, {each for each, writers in graph.items() if writers})
            case "wrote" | "query":
                graph[label].add(run)
                if act == "wrote":
                    sight.wrote(run, {label})
                else:
                    sight.ran(run[0])
        for each in RUNS:
            for some, writers in graph.items():
                assert not (sight.is_new(each, some) and writers - {each})
