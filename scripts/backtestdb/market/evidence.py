"""When an answer is believed.

A bar is believed when it comes. That there is none is believed at a second sign: a later bar of the
ticker in the same answer, or the same answer to another run. The vendor's gateway has answered
`results: null` for tickers that trade (polygon-io/issues #2), and one such answer must not become a
hole that is never asked about again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backtestdb.market.session_mask import EMPTY, SessionMask

# An answer about the whole market with less than half of the rows of the fullest session around it
# is not believed at once; the number of tickers that trade changes by a few percent in a month. The
# fullest, not the median: the answers of a whole week may be cut in a row.
NEIGHBOURS = 20
FEWEST_OF_NEIGHBOURS = 0.5


@dataclass(frozen=True)
class Weighed:
    """`replaced`: sessions whose stored bars give way to those of the answer, none among them.
    `doubtful`: sessions that wait for the same answer to another run, and keep what is stored.
    `kept`: sessions before the answer's first bar that keep what is stored, because a subscription
    that ends there is answered the same."""

    replaced: SessionMask
    doubtful: SessionMask
    kept: SessionMask


def weigh_range(
    every: SessionMask,
    good: SessionMask,
    rejected: SessionMask,
    stored: SessionMask,
    *,
    doubted_before: SessionMask = EMPTY,
) -> Weighed:
    """Given the asked sessions, those of which the answer has bars that can be true (`good`), those
    of which it has some that cannot, or may not have all (`rejected`), those with `stored` bars,
    and those that another run was answered without bars, return what is believed."""
    answered = good | rejected
    empty = every & ~answered
    before_first_bar = every & answered.before() if answered else every
    behind_last_bar = every & ~answered.until()

    # A subscription that ends there is answered the same.
    kept = empty & before_first_bar & stored
    unsure = (empty & (behind_last_bar | stored) & ~kept) | rejected
    doubtful = unsure & ~doubted_before
    return Weighed(every & ~doubtful & ~kept, doubtful, kept)


def find_thin_sessions(received: Sequence[int]) -> list[int]:
    """Return the places of the answers about the whole market that have far fewer rows than those
    beside them; `received`: rows of each, in order of session."""
    thin = []

    for place, rows in enumerate(received):
        around = [
            *received[max(0, place - NEIGHBOURS) : place],
            *received[place + 1 : place + 1 + NEIGHBOURS],
        ]
        # Against the fullest of them: its neighbours may be thin, too.
        if around and rows < FEWEST_OF_NEIGHBOURS * max(around):
            thin.append(place)
    return thin
