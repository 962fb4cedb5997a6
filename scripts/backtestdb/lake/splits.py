"""Splits and the bars that backfill-lake brought, which come as traded: which splits they show, and
adjusted bars.

A split counts when the price between the last bar before its day and the first one from it on jumps
by its ratio. These bars came as traded, so no answer is adjusted by it; those of the database are
(`market.splits`). Only the files of that ticker's bucket change.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date
from itertools import combinations
from math import log, prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtestdb.lake.layout import SCHEMAS, PartKey, bucket_of
from backtestdb.lake.minutes import adjust, as_traded
from backtestdb.lake.owned import Owned
from backtestdb.lake.table import Draft, read_part
from backtestdb.market.splits import Split

SPLITS = PartKey("splits")
# Splits at one and the same boundary are tried in every combination; more than this many were never
# seen.
SPLITS_TOGETHER = 6
# A price that moves by a quarter overnight is news; one that moves by a small split's ratio is not.
NIGHT = log(1.25)
SEEN_COLUMNS = [
    *("ticker", "session_date", "timestamp"),
    *("open", "close", "traded_open", "traded_close"),
]


def load_lake_splits(draft: Draft) -> list[dict[str, Any]]:
    """Return rows of `splits` about bars that backfill-lake brought."""
    part = draft.parts.get(SPLITS)
    rows = read_part(draft.store, part).to_pylist() if part else []
    return [row for row in rows if row["origin"] == "lake"]


def as_split(row: dict[str, Any]) -> Split:
    return Split(row["execution_date"], row["ticker"], row["split_from"], row["split_to"])


def make_ratios(rows: pa.Table, splits: Iterable[Split], owned: Owned) -> np.ndarray:
    """Return for each bar the product of later splits; 1 for bars that the database brought."""
    ratios = np.ones(len(rows))
    mine = owned.mask(rows)

    for split in splits:
        before = pc.and_(
            pc.equal(rows["ticker"], split.ticker),
            pc.less(rows["session_date"], split.execution_date),
        )
        ratios[before.to_numpy() & mine] *= split.ratio
    return ratios


def apply_splits(draft: Draft, listed: Sequence[Split], owned: Owned) -> list[Split]:
    """Given the vendor's splits, adjust the bars of those that the bars show and that were not
    dealt with. Return what was applied now."""
    rows = load_lake_splits(draft)
    dealt_with = {as_split(row) for row in rows}
    months = sorted({key.period for key in draft.parts if key.table == "bars_5min"})

    open_ones: dict[int, list[Split]] = defaultdict(list)
    for split in listed:
        if split not in dealt_with and months and f"{split.execution_date:%Y-%m}" >= months[0]:
            open_ones[bucket_of(split.ticker)].append(split)

    applied = []
    for bucket, splits in open_ones.items():
        # A split without a bar on both sides of its day is left for a later run.
        findings = judge(draft, bucket, splits, owned)
        rows += [describe(split, state, seen) for split, state, seen in findings]
        confirmed = [split for split, state, _ in findings if state == "applied"]
        if confirmed:
            every = [as_split(row) for row in rows if row["state"] == "applied"]
            adjust_bucket(draft, bucket, confirmed, every, owned)
            applied += confirmed

    if len(rows) > len(dealt_with):
        save_lake_splits(draft, rows)
    return applied


def choose_explanation(seen_ratio: float, splits: Sequence[Split]) -> tuple[Split, ...]:
    """Return the combination whose ratios multiplied come nearest to `seen_ratio`, of equally near
    ones the smallest; none when even that one leaves more unexplained than a night may bring."""
    every = [
        chosen
        for count in range(min(len(splits), SPLITS_TOGETHER) + 1)
        for chosen in combinations(splits, count)
    ]

    ratios = {chosen: log(prod(split.ratio for split in chosen)) for chosen in every}
    nearest = min(every, key=lambda chosen: abs(log(seen_ratio) - ratios[chosen]))
    unexplained = abs(log(seen_ratio) - ratios[nearest])
    return nearest if unexplained <= max(NIGHT, abs(ratios[nearest]) / 2) else ()


def judge(
    draft: Draft, bucket: int, splits: Sequence[Split], owned: Owned
) -> list[tuple[Split, str, float]]:
    """Return state and seen ratio of the splits that have bars on both sides. Several between the
    same two bars are judged together."""
    together: dict[tuple[str, float], list[Split]] = defaultdict(list)
    for ticker in sorted({split.ticker for split in splits}):
        mine = [split for split in splits if split.ticker == ticker]
        first = min(split.execution_date for split in mine)
        last = max(split.execution_date for split in mine)
        rows = load_around(draft, bucket, ticker, first, last, owned)
        for split in mine:
            seen = find_jump(rows, split.execution_date)
            if seen is not None:
                together[ticker, seen].append(split)

    findings = []
    for (_, seen), same in together.items():
        chosen = choose_explanation(seen, same)
        findings += [
            (split, "applied" if split in chosen else "unconfirmed", seen) for split in same
        ]

    return findings


def find_keys(draft: Draft, bucket: int) -> list[PartKey]:
    """Return the months of a bucket's 5-minute bars, oldest first."""
    return sorted(key for key in draft.parts if (key.table, key.bucket) == ("bars_5min", bucket))


def load_around(
    draft: Draft, bucket: int, ticker: str, first: date, last: date, owned: Owned
) -> pa.Table:
    """Return a ticker's bars as they came, from the last month with some before `first` to the
    first one after `last`."""
    keys, found = find_keys(draft, bucket), []

    before = [key for key in keys if key.period < f"{first:%Y-%m}"]
    between = [key for key in keys if f"{first:%Y-%m}" <= key.period <= f"{last:%Y-%m}"]
    after = [key for key in keys if key.period > f"{last:%Y-%m}"]

    for group, is_enough in ((reversed(before), True), (between, False), (after, True)):
        for key in group:
            rows = read_part(draft.store, draft.parts[key], SEEN_COLUMNS)
            rows = rows.filter(pc.equal(rows["ticker"], ticker))
            rows = rows.filter(pa.array(owned.mask(rows)))
            found.append(rows)
            if is_enough and len(rows):
                break

    schema = pa.schema([SCHEMAS["bars_5min"].field(name) for name in SEEN_COLUMNS])
    return pa.concat_tables([schema.empty_table(), *found]).sort_by("timestamp")


def find_jump(rows: pa.Table, executed: date) -> float | None:
    """Return the close before a day by the open from it on, as traded; None if one is missing."""
    place = int(pc.sum(pc.less(rows["session_date"], executed).cast(pa.int64())).as_py() or 0)
    if not 0 < place < len(rows):
        return None
    return float(as_traded(rows, "close")[place - 1] / as_traded(rows, "open")[place])


def adjust_bucket(
    draft: Draft, bucket: int, confirmed: Sequence[Split], every: Sequence[Split], owned: Owned
) -> None:
    """Rewrite the months that have a bar from before one of the confirmed splits."""
    last = max(split.execution_date for split in confirmed)
    mine = [split for split in every if bucket_of(split.ticker) == bucket]
    for key in find_keys(draft, bucket):
        if key.period <= f"{last:%Y-%m}":
            rows = read_part(draft.store, draft.parts[key])
            draft.put(key, adjust(rows, make_ratios(rows, mine, owned)))


def describe(split: Split, state: str, seen_ratio: float) -> dict[str, Any]:
    return asdict(split) | {"state": state, "seen_ratio": seen_ratio, "origin": "lake"}


def save_lake_splits(draft: Draft, rows: Sequence[dict[str, Any]]) -> None:
    """Put the lake's splits beside those of the database."""
    part = draft.parts.get(SPLITS)
    there = read_part(draft.store, part).to_pylist() if part else []
    others = [row for row in there if row["origin"] != "lake"]
    order = ("ticker", "execution_date", "split_from", "split_to")
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in order))
    draft.put(SPLITS, pa.Table.from_pylist([*others, *ordered], schema=SCHEMAS["splits"]))
