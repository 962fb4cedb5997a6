"""What a computed part is made from, and whether it still is what its inputs would make. Pure."""

from collections.abc import Mapping
from hashlib import blake2b

from backtestdb.lake.layout import Part, PartKey

INPUTS = {"daily_metrics": "bars_1day", "session_aggregates": "bars_5min"}
# Which of a bucket's earlier periods a period needs: an exponential mean remembers all of them, a
# gap the last one.
NEEDS_ALL_BEFORE = {"daily_metrics": True, "session_aggregates": False}


def find_inputs(parts: Mapping[PartKey, Part], key: PartKey) -> list[Part]:
    """Return the bars that a computed part needs, oldest first; none without bars of its period."""
    table = INPUTS[key.table]
    if PartKey(table, key.period, key.bucket) not in parts:
        return []

    periods = sorted(
        k.period
        for k in parts
        if k.table == table and k.bucket == key.bucket and k.period <= key.period
    )

    if not NEEDS_ALL_BEFORE[key.table]:
        periods = periods[-2:]
    return [parts[PartKey(table, period, key.bucket)] for period in periods]


def make_lineage(parts: Mapping[PartKey, Part], key: PartKey) -> str:
    """Return the `made_from` of a computed part that follows its inputs; "" for none."""
    inputs = find_inputs(parts, key)
    if not inputs:
        return ""
    return blake2b(" ".join(part.content for part in inputs).encode(), digest_size=16).hexdigest()


def find_due_parts(parts: Mapping[PartKey, Part], table: str) -> list[PartKey]:
    """Return computed parts that do not follow their inputs, and those without inputs."""
    wanted = {PartKey(table, k.period, k.bucket) for k in parts if k.table == INPUTS[table]}
    there = {k for k in parts if k.table == table}
    due = [
        key
        for key in wanted
        if key not in there or parts[key].made_from != make_lineage(parts, key)
    ]
    return sorted({*due, *(there - wanted)})
