"""The facts as numbers for a monitor: the text format of Prometheus, as its textfile collector
reads it.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. Times are Unix seconds, sizes
bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from backtestdb.health.facts import Facts
from backtestdb.health.problem import Problem
from backtestdb.offsite.facts import OffsiteFacts

Sample = tuple[dict[str, str], float]
PREFIX = "ai_backtest_"


@dataclass(frozen=True)
class Metric:
    """A gauge. `samples`: labels and value; without any the metric is left out."""

    name: str
    help: str
    samples: Sequence[Sample]


def facts_as_prometheus(facts: Facts, problems: Sequence[Problem]) -> str:
    """Return the text of a collector's file: the collector reads only lines with a line feed."""
    return "".join(
        line + "\n" for metric in make_metrics(facts, problems) for line in describe(metric)
    )


def make_metrics(facts: Facts, problems: Sequence[Problem]) -> Iterator[Metric]:
    """Yield all numbers, each with its help."""
    yield one("checked_time_seconds", "When these numbers were made.", facts.checked_at.timestamp())

    names = sorted({problem.name for problem in problems})
    yield one("problems", "How many things need the user.", len(problems))
    yield Metric(
        "problem", "1 for each problem by its name.", [({"name": name}, 1) for name in names]
    )

    database = facts.database
    yield one(
        "database_present",
        "1 when the database can be read and holds rows.",
        database.state == "present",
    )
    yield one("database_bytes", "Size of the database and its log.", database.bytes)

    rows: dict[str, int] = {}
    for table in database.tables:
        rows[table.group] = rows.get(table.group, 0) + table.rows
    help_text = "Rows by class of table; of large tables an upper bound."
    yield Metric(
        "database_rows", help_text, [({"class": group}, count) for group, count in rows.items()]
    )

    yield from make_backup_metrics(facts)
    yield from make_coverage_metrics(facts)

    if facts.drills:
        drill = facts.drills[0]
        yield one("drill_time_seconds", "When the last drill was.", drill.at_utc.timestamp())
        yield one(
            "drill_passed", "1 when the last drill restored every backup whole.", drill.passed
        )
        yield one(
            "drill_recovery_seconds",
            "How long the slowest restore of the last drill took.",
            drill.seconds,
        )

    if facts.offsite:
        yield from make_offsite_metrics(facts.offsite)

    yield one("schedule_loaded", "1 when something makes backups by itself.", facts.schedule.loaded)
    yield one("quota_requests_used", "Requests of the last minute.", facts.quota.used)
    yield one(
        "quota_requests_allowed",
        "Requests allowed a minute, 0 without a limit.",
        facts.quota.per_minute,
    )


def make_offsite_metrics(offsite: OffsiteFacts) -> Iterator[Metric]:
    """Yield the numbers of the copies off this machine. What never happened has no number; the
    problem `offsite_stale` tells of that."""
    if offsite.lag is not None:
        lag = offsite.lag.total_seconds()
        yield one("offsite_lag_seconds", "How far the proven copies elsewhere are behind.", lag)

    newest = {"full": offsite.newest_full_utc, "small": offsite.newest_small_utc}
    taken = {kind: moment.timestamp() for kind, moment in newest.items() if moment}
    yield of_kinds("offsite_copy_time_seconds", "When the newest copy elsewhere was taken.", taken)

    if offsite.checked_at_utc:
        checked_at = offsite.checked_at_utc.timestamp()
        yield one("offsite_check_time_seconds", "When copies were last read there.", checked_at)
        yield one(
            "offsite_check_passed", "1 when all of them were whole.", not offsite.check_problems
        )

    if offsite.drilled_at_utc:
        drilled_at = offsite.drilled_at_utc.timestamp()
        yield one("offsite_drill_time_seconds", "When copies were last brought back.", drilled_at)
        yield one("offsite_drill_passed", "1 when all came back.", not offsite.drill_problem)
        yield one("offsite_drill_recovery_seconds", "How long that took.", offsite.drill_seconds)


def make_backup_metrics(facts: Facts) -> Iterator[Metric]:
    """Yield the numbers of the backups by kind, and of their folder."""
    backups = facts.backups
    kinds = {"full": backups.full, "small": backups.irreplaceable}
    taken = {
        kind: one for kind, one in kinds.items() if one.newest_at_utc and one.newest_age is not None
    }

    yield of_kinds("backups", "Verified backups.", {kind: one.count for kind, one in kinds.items()})
    yield of_kinds(
        "backups_bytes",
        "All verified backups together.",
        {kind: one.bytes_used for kind, one in kinds.items()},
    )
    yield of_kinds(
        "backup_bytes",
        "Size of the newest.",
        {kind: one.newest_bytes for kind, one in taken.items()},
    )
    yield of_kinds(
        "backup_age_seconds",
        "Age of the newest; of a small one since it was last found to be up to date.",
        {
            kind: one.newest_age.total_seconds()
            for kind, one in taken.items()
            if one.newest_age is not None
        },
    )

    yield one(
        "backups_unverified", "Files in BACKUP_DIR that do not count.", len(backups.unverified)
    )
    yield one(
        "backup_disk_present", "0 when the disk of BACKUP_DIR is away.", not backups.missing_disk
    )
    yield one("backup_free_bytes", "Room in BACKUP_DIR.", backups.free_bytes)
    if backups.room_for is not None:
        yield one("backup_room_for", "How many more full backups fit.", backups.room_for)

    if backups.fills_in_days is not None:
        help_text = (
            "Days until a full backup finds no room, at the present growth; absent beyond 400."
        )
        yield one("backup_fills_in_days", help_text, backups.fills_in_days)


def make_coverage_metrics(facts: Facts) -> Iterator[Metric]:
    """Yield the numbers of the coverage by universe and timeframe."""
    helps = {
        "expected": "Sessions of tickers that were asked for.",
        "stored": "Sessions of tickers with bars.",
        "known_empty": "Sessions of tickers of which the vendor has nothing.",
        "beyond_plan": "Sessions of tickers that the key may not ask for.",
        "failed": "Sessions of tickers that could not be fetched.",
    }

    for name, help_text in helps.items():
        samples = [
            ({"universe": row.universe, "timeframe": row.timeframe}, getattr(row, name))
            for row in facts.universes
            if getattr(row, name) is not None
        ]
        yield Metric(f"coverage_{name}", help_text, samples)


def one(name: str, help_text: str, value: float) -> Metric:
    return Metric(name, help_text, [({}, value)])


def of_kinds(name: str, help_text: str, values: dict[str, float] | dict[str, int]) -> Metric:
    return Metric(name, help_text, [({"kind": kind}, value) for kind, value in values.items()])


def describe(metric: Metric) -> Iterator[str]:
    if not metric.samples:
        return
    yield f"# HELP {PREFIX}{metric.name} {metric.help}"
    yield f"# TYPE {PREFIX}{metric.name} gauge"
    for labels, value in metric.samples:
        yield f"{PREFIX}{metric.name}{describe_labels(labels.items())} {value + 0:.15g}"


def describe_labels(labels: Iterable[tuple[str, str]]) -> str:
    parts = [f'{name}="{escape(value)}"' for name, value in labels]
    return "{" + ",".join(parts) + "}" if parts else ""


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
