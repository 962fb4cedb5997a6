"""Is the lake what it says: files against the log, rows against rules, sessions against records."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from backtestdb.lake.layout import SCHEMAS, Part, PartKey
from backtestdb.lake.lineage import INPUTS, find_due_parts
from backtestdb.lake.scan import Lake
from backtestdb.lake.table import PARTS, Version, active_paths
from backtestdb.market.bars import HIGHEST_VOLUME

# A rule is a condition that no row may meet; they are those of the bars that come in, and of where
# a row may lie.
BAR_RULES = {
    "price not above 0": "NOT least(open, high, low, close) > 0",
    "high below open, close or low": "high < greatest(open, close, low)",
    "low above open or close": "low > least(open, close)",
    "volume below 0, or above the highest": f"volume < 0 OR volume > {HIGHEST_VOLUME}",
    "bar in another bucket than its ticker's": "bucket <> bucket_of(ticker)",
    "bar on another day than its session": "timestamp::DATE <> session_date",
}
MINUTE_RULES = {
    "not on five minutes": "epoch(timestamp) % 300 <> 0",
    "outside of 04:00-20:00": "hour(timestamp) < 4 OR hour(timestamp) >= 20",
    "in another month's file": "period <> strftime(session_date, '%Y-%m')",
}
TWICE = "SELECT count(*) - count(DISTINCT (ticker, timestamp)) FROM {table}"
THREADS = 4


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and how often."""

    where: str
    what: str
    count: int


def audit(version: Version, advance: Callable[[int], None] = lambda _: None) -> list[Finding]:
    """Read the whole of a version. Return what is wrong; nothing when all is well."""
    findings = list(check_log(version))

    with ThreadPoolExecutor(THREADS) as threads:
        for found in threads.map(lambda part: check_file(version, part), version.parts.values()):
            findings += found
            advance(1)

    if any("file" in finding.what for finding in findings):
        return findings  # rows of damaged files would only stop the queries

    lake = Lake(version)
    for table in ("bars_1day", "bars_5min"):
        findings += check_rows(
            lake, table, {**BAR_RULES, **(MINUTE_RULES if table == "bars_5min" else {})}
        )

    return [*findings, *check_counts(lake), *check_lineage(version)]


def check_log(version: Version) -> Iterator[Finding]:
    """Yield each table whose own log names other files than `parts`."""
    for table in SCHEMAS:
        listed = {part.path.removeprefix(f"{table}/") for part in version.parts_of(table)}
        logged = set(active_paths(version.delta(table))) if table in version.row.tables else set()
        if listed != logged:
            yield Finding(
                table, f"files of the table's log and of {PARTS} differ", len(listed ^ logged)
            )


def check_file(version: Version, part: Part) -> list[Finding]:
    try:
        content = version.store.read(part.path)
    except OSError as error:
        return [Finding(part.path, f"the file cannot be read ({error})", 1)]
    if len(content) != part.bytes or sha256(content).hexdigest() != part.sha256:
        return [Finding(part.path, "the file has another content than was written", 1)]
    return []


def check_rows(lake: Lake, table: str, rules: dict[str, str]) -> Iterator[Finding]:
    """Yield the rules that rows break, all in one pass, and the bars that are there twice."""
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in rules.values())
    row = lake.connection.execute(f"SELECT {counts} FROM {table}").fetchall()[0]
    for rule, count in zip(rules, row, strict=True):
        if count:
            yield Finding(table, rule, count)

    for part in lake.version.parts_of(table):
        where = f" WHERE period = '{part.key.period}' AND bucket = {part.key.bucket}"
        ((twice,),) = lake.connection.execute(TWICE.format(table=table) + where).fetchall()
        if twice:
            yield Finding(part.path, "two bars of the same time", twice)


def check_counts(lake: Lake) -> Iterator[Finding]:
    """Yield each session that came as a file and has other rows than its record says."""
    if PartKey("asked") not in lake.version.parts:
        return

    rows = lake.connection.execute(
        "SELECT start_date, stored, (SELECT count(*) FROM bars_5min"
        " WHERE period = strftime(start_date, '%Y-%m') AND session_date = start_date)"
        " FROM asked WHERE ticker = '*' ORDER BY start_date"
    ).fetchall()

    for day, stored, there in rows:
        if stored != there:
            yield Finding(
                f"bars_5min {day}",
                f"{stored} bars are on record, {there} are there",
                abs(stored - there),
            )


def check_lineage(version: Version) -> Iterator[Finding]:
    """Yield the tables whose metrics were computed here and do not follow their bars."""
    for table in INPUTS:
        due = [
            key
            for key in find_due_parts(version.parts, table)
            if getattr(version.parts.get(key), "made_from", "")
        ]
        if due:
            yield Finding(table, "files do not follow their bars yet: make lake-metrics", len(due))
