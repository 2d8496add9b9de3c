"""Rows wait while ingestion is too far behind, and go again; whatever happens, not for ever without a reason."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lag_gate import LagGate
from actors.lag_limit import FAILURES_MAX, LagLimit
from cartoray.settings import IntelSettings, Settings


def measure(limit: LagLimit, lag: int) -> bool:
    """Whether rows wait after that."""
    limit.measuring()
    limit.measured(lag)
    return bool(limit.reason)


def test_rows_wait_from_the_limit_on_until_half_of_it_is_left() -> None:
    limit = LagLimit(10)
    lags = [0, 9, 10, 30, 9, 6, 5, 9, 10]
    assert [measure(limit, lag) for lag in lags] == [False, False, True, True, True, True, False, False, True]


def test_the_reason_says_how_far_ingestion_is_behind_when_rows_go_on_and_the_setting() -> None:
    limit = LagLimit(20_000)
    measure(limit, 20_345)
    reason = limit.reason
    for part in ("ingestion", "20,345 messages", "10,000", "CARTORAY_INTEL_LAG_MESSAGES_MAX is 20,000"):
        assert part in reason
    measure(limit, 15_000)
    assert limit.reason == reason, "it is logged when it changes"


def test_a_burst_between_two_measurings_is_counted() -> None:
    limit = LagLimit(10)
    measure(limit, 7)
    waits = []
    for _ in range(3):
        limit.sent()
        waits.append(bool(limit.reason))
    assert waits == [False, False, True]


def test_what_was_sent_during_a_measuring_counts_until_the_next_one() -> None:
    limit = LagLimit(10)
    for _ in range(4):
        limit.sent()  # seen by the measuring
    limit.measuring()
    for _ in range(6):
        limit.sent()  # perhaps not
    limit.measured(4)
    assert limit.reason
    assert not measure(limit, 4)


def test_what_could_not_be_measured_holds_for_a_while_and_then_rows_go_without_a_limit() -> None:
    limit = LagLimit(10)
    measure(limit, 10)
    waits = []
    for _ in range(FAILURES_MAX):
        limit.measuring()
        limit.failed()
        waits.append(bool(limit.reason))
    assert waits == [True] * (FAILURES_MAX - 1) + [False]
    for _ in range(20):
        limit.sent()
    assert not limit.reason
    assert measure(limit, 10), "it holds again when it can be measured again"


def test_zero_is_no_limit() -> None:
    limit = LagLimit(0)
    limit.sent()
    assert not measure(limit, 1_000_000)


@given(st.integers(1, 50), st.lists(st.integers(0, 100) | st.just("sent") | st.just("failed")))
def test_one_measuring_that_finds_nothing_left_always_lets_rows_go(messages_max: int, steps: list[int | str]) -> None:
    limit = LagLimit(messages_max)
    for step in steps:
        limit.measuring()
        if isinstance(step, int):
            limit.measured(step)
        elif step == "sent":
            limit.sent()
        else:
            limit.failed()
    assert not measure(limit, 0)


class Unmeasurable:
    """In place of `GroupLag`."""

    def __init__(self, *_: object) -> None:
        self.asked = 0

    def messages(self) -> int:
        self.asked += 1
        raise RuntimeError("of whatever kind")

    def close(self) -> None:
        pass


def test_rows_go_when_nothing_can_be_measured_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    measuring = Unmeasurable()
    monkeypatch.setattr("actors.lag_gate.GroupLag", lambda *_: measuring)
    monkeypatch.setattr("actors.lag_gate._MEASURE_EVERY_S", 0.01)
    gate = LagGate(Settings(intel=IntelSettings(lag_messages_max=1)))
    gate.start()
    for _ in range(10):
        gate.admit(lambda: None)
    while measuring.asked < 3 * FAILURES_MAX:
        pass
    gate.close()
    assert [record.message for record in caplog.records if "of whatever kind" in record.message] == [
        "lag_unknown rows=go without limit reason=of whatever kind"
    ]


class Over(Exception):
    pass


def test_who_waits_is_told_when_it_is_over_and_its_time_does_not_run_out_meanwhile() -> None:
    gate = LagGate(Settings(intel=IntelSettings(lag_messages_max=2)))  # nobody measures
    over = threading.Event()

    def check() -> None:
        if over.is_set():
            raise Over

    gate.admit(check)
    assert not gate.trouble
    gate.admit(check)
    assert gate.trouble
    stood_s = gate.clock_s()
    timer = threading.Timer(0.1, over.set)
    timer.start()
    with pytest.raises(Over):
        gate.admit(check)
    assert gate.clock_s() == stood_s
    gate.close()
