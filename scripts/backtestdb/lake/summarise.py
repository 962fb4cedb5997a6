"""The figures of a version for `make status`; `summary` reads them without a package."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from backtestdb.config import Settings
from backtestdb.lake.coverage import LakeCoverage
from backtestdb.lake.layout import BIG_TABLES
from backtestdb.lake.lineage import INPUTS, find_due_parts
from backtestdb.lake.summary import lake_facts, summary_path
from backtestdb.lake.table import Version


def make_summary(version: Version) -> dict[str, Any]:
    """Return what `make status` shows of a version, in values of JSON."""
    tables = {}
    for table in BIG_TABLES:
        parts = version.parts_of(table)
        if parts:
            tables[table] = {
                "rows": sum(part.rows for part in parts),
                "bytes": sum(part.bytes for part in parts),
                "first_session": min(part.first_session for part in parts),
                "last_session": max(part.last_session for part in parts),
            }

    return {
        "version": version.number or None,
        "published_at_utc": version.row.published_at_utc.isoformat(timespec="seconds"),
        "versions": len(version.rows),
        "files": len(version.parts),
        "bytes": sum(part.bytes for part in version.parts.values()),
        "tables": tables,
        "due": {table: len(find_due_parts(version.parts, table)) for table in INPUTS},
    }


def save_summary(
    settings: Settings, version: Version, coverage: Sequence[LakeCoverage] = ()
) -> None:
    """Leave the figures of a version for `make status`; without `coverage` it stays as it was."""
    before = lake_facts(settings) or {}
    counted = {row["universe"]: row for row in before.get("coverage", [])}
    for each in coverage:
        counted[each.universe] = {
            name: str(v) if "date" in name else v for name, v in asdict(each).items()
        }

    path = summary_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_suffix(f".{version.number}.writing")
    writing.write_text(json.dumps({**make_summary(version), "coverage": list(counted.values())}))
    writing.replace(path)
