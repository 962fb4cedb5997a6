"""Versions of the lake: many tables that change together, though each is a Delta table of its own.

A Delta commit is atomic for one table. So that bars, metrics and universes are always of one
moment, readers ask the table `versions` first: its newest row names the Delta version of every
other table. A publication commits to the others, where no reader looks yet, and its last commit is
the one to `versions`. Killed before, it has changed nothing; what it left is overwritten by the
next publication and removed by `make lake-clean`. That last commit fails when another publication
came first: two cannot both follow the same version.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from backtestdb.errors import BusyError, ProjectError
from backtestdb.lake.layout import (
    PARTITION_COLUMNS,
    PERIODS,
    SCHEMAS,
    Part,
    PartKey,
    full_schema,
    hash_content,
)
from backtestdb.lake.store import Store

PARTS, VERSIONS = "parts", "versions"
PART_TEXTS = ("path", "sha256", "content", "made_from", "first_session", "last_session")
LOG_SCHEMAS = {
    PARTS: pa.schema(
        [pa.field(name, pa.string()) for name in ("table", "period")]
        + [pa.field("bucket", pa.int32())]
        + [pa.field(name, pa.string()) for name in PART_TEXTS]
        + [pa.field(name, pa.int64()) for name in ("rows", "bytes")]
    ),
    VERSIONS: pa.schema(
        [
            pa.field("version", pa.int64()),
            pa.field("published_at_utc", pa.timestamp("us", tz="UTC")),
            pa.field("command", pa.string()),
            pa.field("tables", pa.string()),  # JSON: the Delta version of each table
        ]
    ),
}
# Delta throws log entries away after 30 days by itself, those of versions that `versions` still
# names among them.
KEEP_LOGS = {"delta.logRetentionDuration": "interval 36500 days"}
# Measured on made-up prices (the worst case): 16.5 bytes a bar and half of the default's seconds.
DICTIONARY = ["ticker", "session_date"]
DELTA_ENCODED = {"timestamp", "volume"}
ROW_GROUP_ROWS = 122_880  # what DuckDB works on at once
LAKE_MISSING = "there is no lake at {}"


class LakeError(ProjectError):
    """The lake is missing, or is not what its log says."""


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """`tables`: the Delta version of each table; a table without rows yet is missing."""

    version: int
    published_at_utc: datetime
    command: str
    tables: Mapping[str, int]


class Version:
    """One whole state of the lake, readable for as long as `make lake-clean` keeps it."""

    def __init__(
        self, store: Store, row: VersionRow, log_version: int, rows: Sequence[VersionRow]
    ) -> None:
        self.store, self.row, self.log_version, self.rows = store, row, log_version, list(rows)

    @property
    def number(self) -> int:
        return self.row.version

    @cached_property
    def parts(self) -> dict[PartKey, Part]:
        """Return every file of this version."""
        if PARTS not in self.row.tables:
            return {}
        rows = read_small(self.delta(PARTS), self.store, LOG_SCHEMAS[PARTS]).to_pylist()
        return {part.key: part for part in map(make_part, rows)}

    def delta(self, table: str) -> DeltaTable:
        """Return the Delta table as this version has it."""
        return open_delta(self.store, table, self.row.tables[table])

    def parts_of(self, table: str) -> list[Part]:
        return sorted(
            (part for key, part in self.parts.items() if key.table == table), key=lambda p: p.key
        )

    def read(self, key: PartKey, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of a part; none where there is no such part."""
        part = self.parts.get(key)
        if part is None:
            schema = SCHEMAS[key.table]
            return (
                pa.schema([schema.field(name) for name in columns]) if columns else schema
            ).empty_table()
        return read_part(self.store, part, columns)


EMPTY = VersionRow(
    version=0, published_at_utc=datetime(1970, 1, 1, tzinfo=UTC), command="", tables={}
)


def open_delta(store: Store, table: str, version: int | None = None) -> DeltaTable:
    return DeltaTable(store.uri(table), version=version, storage_options=dict(store.options))


def open_lake(store: Store, number: int | None = None, *, may_be_missing: bool = False) -> Version:
    """Return the newest version, or the given one. `may_be_missing`: a lake without a version is
    its version 0.

    Raise LakeError where there is no lake or no such version any more.
    """
    try:
        log = open_delta(store, VERSIONS)
    except TableNotFoundError:
        if may_be_missing:
            return Version(store, EMPTY, -1, [])
        raise LakeError(LAKE_MISSING.format(store.root), next_step="make publish") from None

    rows = [
        VersionRow(**{**row, "tables": json.loads(row["tables"])})
        for row in read_small(log, store, LOG_SCHEMAS[VERSIONS]).sort_by("version").to_pylist()
    ]

    if not rows:
        if may_be_missing:
            return Version(store, EMPTY, log.version(), [])
        raise LakeError(LAKE_MISSING.format(store.root), next_step="make publish")

    chosen = [row for row in rows if number is None or row.version == number]
    if not chosen:
        raise LakeError(
            f"version {number} is not there any more; there are {rows[0].version} to "
            f"{rows[-1].version}",
            next_step="make lake-query ARGS=--versions",
        )

    return Version(store, chosen[-1], log.version(), rows)


def read_small(delta: DeltaTable, store: Store, schema: pa.Schema) -> pa.Table:
    """Return a table of one file or none, read without a look at anything else."""
    tables = []
    for path in active_paths(delta):
        with store.open(f"{table_name(delta)}/{path}") as file:
            tables.append(pq.read_table(file))

    return pa.concat_tables(tables).cast(schema) if tables else schema.empty_table()


def table_name(delta: DeltaTable) -> str:
    return delta.table_uri.rstrip("/").rsplit("/", 1)[-1]


def active_paths(delta: DeltaTable) -> list[str]:
    return sorted(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())


def make_part(row: Mapping[str, object]) -> Part:
    given = dict(row)
    key = PartKey(str(given.pop("table")), str(given.pop("period")), int(str(given.pop("bucket"))))
    return Part(key=key, **given)  # type: ignore[arg-type]


def write_part(
    store: Store, key: PartKey, rows: pa.Table, made_from: str = "", content: str = ""
) -> Part:
    """Write rows, sorted as files are, under a new name that nothing points to yet."""
    rows = rows.cast(SCHEMAS[key.table])
    encoded = encode(rows)

    path = f"{key.folder}/{uuid4().hex}.parquet"
    store.write(path, encoded)

    return Part(
        key=key,
        path=path,
        rows=len(rows),
        bytes=encoded.size,
        sha256=sha256(encoded).hexdigest(),
        content=content or hash_content(rows),
        made_from=made_from,
        **(find_sessions(rows) if key.period else {}),
    )


def find_sessions(rows: pa.Table) -> dict[str, str]:
    ends = pc.min_max(rows["session_date"]).as_py()
    return {"first_session": str(ends["min"] or ""), "last_session": str(ends["max"] or "")}


def encode(rows: pa.Table) -> pa.Buffer:
    """Return rows as a Parquet file; no dictionary for prices: nearly all of them differ."""
    names = rows.column_names
    output = pa.BufferOutputStream()
    pq.write_table(
        rows,
        output,
        compression="zstd",
        compression_level=3,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=[
            name
            for name in names
            if name in DICTIONARY or rows.schema.field(name).type == pa.string()
        ],
        column_encoding={name: "DELTA_BINARY_PACKED" for name in names if name in DELTA_ENCODED},
    )

    return output.getvalue()


def read_part(store: Store, part: Part, columns: list[str] | None = None) -> pa.Table:
    if store.is_local:
        return pq.read_table(f"{store.root}/{part.path}", columns=columns, partitioning=None)
    with store.open(part.path) as file:
        return pq.read_table(file, columns=columns)


def commit_files(
    store: Store,
    delta: DeltaTable,
    schema: pa.Schema,
    adds: Iterable[AddAction],
    removes: Iterable[RemoveAction],
    partitioned: bool = False,
) -> int:
    """Commit once, on exactly the version that `delta` shows. Raise CommitFailedError when there is
    a newer one already."""
    expected = delta.version() + 1
    delta.create_write_transaction(
        [*adds, *removes],
        "append",
        Schema.from_arrow(schema),
        PARTITION_COLUMNS if partitioned else None,
        # A retry on top of a newer one would mix the files of two publications.
        commit_properties=CommitProperties(max_commit_retries=0),
    )
    store.flush(f"{table_name(delta)}/_delta_log/{expected:020d}.json")
    return expected


def schema_of(table: str) -> pa.Schema:
    return LOG_SCHEMAS[table] if table in LOG_SCHEMAS else full_schema(table)


def ensure_delta(store: Store, table: str) -> DeltaTable:
    """Return the table as it is now, after any interrupted publication; made if missing."""
    try:
        return open_delta(store, table)
    except TableNotFoundError:
        return DeltaTable.create(
            store.uri(table),
            schema=schema_of(table),
            mode="ignore",
            partition_by=PARTITION_COLUMNS if table in PERIODS else None,
            configuration=KEEP_LOGS,
            storage_options=dict(store.options),
        )


def commit_table(
    store: Store, table: str, parts: Sequence[Part], at: DeltaTable | None = None
) -> int:
    """Let a table consist of exactly these files; return its Delta version. `at`: the state that
    the commit has to follow; the one that is there now when it is left out."""
    schema = schema_of(table)
    delta = at or ensure_delta(store, table)

    wanted = {part.path.removeprefix(f"{table}/"): part for part in parts}
    actions = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    there = {action["path"]: action for action in actions}

    now_ms = time.time_ns() // 1_000_000
    adds = [
        AddAction(path, part.bytes, partition_values(part.key), now_ms, True, make_stats(part))
        for path, part in wanted.items()
        if path not in there
    ]
    removes = [
        RemoveAction(
            path, True, now_ms, size=action["size_bytes"], partition_values=values_of(action)
        )
        for path, action in there.items()
        if path not in wanted
    ]

    if not adds and not removes:
        return delta.version()
    return commit_files(store, delta, schema, adds, removes, table in PERIODS)


def make_stats(part: Part) -> str:
    """Return what engines look at before they open a file."""
    stats: dict[str, object] = {"numRecords": part.rows}
    if part.first_session:
        stats["minValues"], stats["maxValues"] = (
            {"session_date": day} for day in (part.first_session, part.last_session)
        )
    return json.dumps(stats)


def partition_values(key: PartKey) -> dict[str, str | None]:
    return {"period": key.period, "bucket": str(key.bucket)} if key.period else {}


def values_of(action: Mapping[str, object]) -> dict[str, str | None]:
    if "partition.period" not in action:
        return {}
    return {"period": str(action["partition.period"]), "bucket": str(action["partition.bucket"])}


def write_log_table(store: Store, table: str, rows: list[dict[str, object]]) -> Part:
    """Return the file of `parts` or `versions`."""
    content = pa.Table.from_pylist(rows, schema=LOG_SCHEMAS[table])
    encoded = encode(content)
    path = f"{table}/{uuid4().hex}.parquet"
    store.write(path, encoded)
    return Part(
        key=PartKey(table), path=path, rows=len(rows), bytes=encoded.size, sha256="", content=""
    )


class Draft:
    """Changes to a version. Nothing of them is to be seen before `commit`."""

    def __init__(self, base: Version, command: str) -> None:
        self.base, self.command, self.store = base, command, base.store
        self.parts = dict(base.parts)
        self.changed: set[str] = set()

    def put(self, key: PartKey, rows: pa.Table, made_from: str = "") -> Part | None:
        """Given sorted rows, make them the new content of a part. Return None, and write nothing,
        when that is its content already."""
        rows = rows.cast(SCHEMAS[key.table])
        content = hash_content(rows)

        if not self.needs(key, len(rows), content, made_from):
            return None
        if not len(rows) and key.period:
            self.drop(key)
            return None

        part = write_part(self.store, key, rows, made_from, content)
        self.take(part)
        return part

    def needs(self, key: PartKey, rows: int, content: str, made_from: str) -> bool:
        there = self.parts.get(key)
        if there is None:
            return rows > 0 or not key.period
        return (there.content, there.made_from) != (content, made_from)

    def take(self, part: Part) -> None:
        """Take a file that is written already, perhaps by another process."""
        self.parts[part.key] = part
        self.changed.add(part.key.table)

    def drop(self, key: PartKey) -> None:
        if self.parts.pop(key, None):
            self.changed.add(key.table)

    def as_version(self) -> Version:
        """Return the state with the changes, for reading in this process."""
        version = Version(self.store, self.base.row, self.base.log_version, self.base.rows)
        version.__dict__["parts"] = self.parts
        return version

    def commit(self, now_utc: datetime) -> Version:
        """Make the changes a version. Return the base when there are none. Raise BusyError when
        another publication came first."""
        if not self.changed:
            return self.base

        try:
            tables = {
                table: commit_table(
                    self.store, table, [p for k, p in self.parts.items() if k.table == table]
                )
                for table in sorted(self.changed)
            }

            # A reader sees nothing of it before the last of these writes.
            tables[PARTS] = commit_table(self.store, PARTS, [self.write_parts()])
            return self.point_to({**self.base.row.tables, **tables}, now_utc)
        except CommitFailedError as error:
            raise BusyError(
                f"another publication was committed to {self.store.root} meanwhile ({error})",
                next_step="start the same command again: it continues from there",
            ) from error

    def write_parts(self) -> Part:
        rows: list[dict[str, object]] = []
        for part in sorted(self.parts.values(), key=lambda p: p.key):
            row = asdict(part)
            row.update(row.pop("key"))
            rows.append(row)
        return write_log_table(self.store, PARTS, rows)

    def point_to(self, tables: Mapping[str, int], now_utc: datetime) -> Version:
        """Return the commit that readers see."""
        row = VersionRow(
            version=max((row.version for row in self.base.rows), default=0) + 1,
            published_at_utc=now_utc,
            command=self.command,
            tables=tables,
        )
        return commit_versions(self.base, [*self.base.rows, row])


def commit_versions(base: Version, rows: Sequence[VersionRow]) -> Version:
    """Let `versions` hold these rows. Raise CommitFailedError if it is not as `base` saw it."""
    store = base.store
    log = ensure_delta(store, VERSIONS)
    if log.version() != max(base.log_version, 0):
        raise CommitFailedError(
            f"the lake is at {log.version()}, not at {base.log_version} any more"
        )

    content = [{**asdict(row), "tables": json.dumps(dict(row.tables))} for row in rows]
    commit_table(store, VERSIONS, [write_log_table(store, VERSIONS, content)], log)
    return open_lake(store)
