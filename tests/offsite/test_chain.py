"""When a new reference is due: the rule that decides what a busy day sends."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backtestdb.offsite import chain
from backtestdb.offsite.state import Reference

START = datetime(2026, 11, 24, tzinfo=UTC)
WEEK = timedelta(days=7)


def make_reference() -> Reference:
    return Reference(name="n", sha256="", bytes=0, sent_bytes=5_000_000, sent_at_utc=START)


def test_reference_whose_deltas_do_not_grow_is_kept_until_its_age() -> None:
    reference = make_reference()
    for _ in range(1000):
        chain.note_delta(reference, 20_000)

    assert not chain.needs_new_reference(reference, START + WEEK - timedelta(seconds=1), WEEK, 1)
    assert chain.needs_new_reference(reference, START + WEEK, WEEK, 1)
    assert chain.needs_new_reference(None, START, WEEK, 1)


def test_reference_from_the_future_is_replaced() -> None:
    assert chain.needs_new_reference(make_reference(), START - timedelta(seconds=1), WEEK, 10**9)


@given(st.integers(1, 5_000), st.integers(1, 500_000), st.integers(0, 40_000))
def test_growing_deltas_cost_at_most_twice_the_best_cycle(
    growth: int, price: int, first: int
) -> None:
    """Deltas that grow by `growth` each; the best cycle is found by trying every length."""
    reference, sent = make_reference(), 0
    while not chain.needs_new_reference(reference, START, WEEK, price):
        chain.note_delta(reference, first + growth * sent)
        assert reference.last_delta_bytes == first + growth * sent
        sent += 1

    def cost_of_each(count: int) -> float:
        return (price + growth * count * (count - 1) / 2) / count

    best = min(cost_of_each(count) for count in range(1, 2 * sent + 1))
    assert cost_of_each(sent) <= 2 * best + growth
