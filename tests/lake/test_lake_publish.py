"""`make publish`: what the database holds, only what changed, whole at any kill."""

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backtestdb.errors import DatabaseFileError, VerificationError
from backtestdb.lake.layout import bucket_of
from backtestdb.lake.store import Store
from backtestdb.lake.table import open_lake
from backtestdb.market.metrics import COMPUTED_METRICS
from lake_tools import (
    BARS,
    TICKERS,
    kill_at_random,
    list_files,
    make_lake_database,
    measure_seconds,
    publish_here,
    read_database,
    read_lake,
    start_tool,
    take_newest_day_away,
    wait_until_ready,
)

KILLS = 5


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lake_database(tmp_path_factory.mktemp("original") / "backtesting.db")


@pytest.fixture(params=["WAL", "DELETE"])
def database(request: pytest.FixtureRequest, original: Path, tmp_path: Path) -> Path:
    path = tmp_path / "data & base" / "backtesting.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute(f"PRAGMA journal_mode = {request.param}")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a lake"


def test_lake_holds_every_row_of_the_database(database: Path, root: Path) -> None:
    done = publish_here(database, root)
    assert done.is_new and done.version == 1
    for table, timeframe in (("bars_1day", "1day"), ("bars_5min", "5min")):
        rows = read_database(database, timeframe)
        assert rows and read_lake(root, table, BARS) == rows
    names = ("ticker", "timestamp", "close", *COMPUTED_METRICS)
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            f"SELECT {', '.join(names)} FROM daily_metrics ORDER BY ticker, timestamp"
        ).fetchall()
        members = connection.execute("SELECT ticker FROM universe_stocks ORDER BY 1").fetchall()
    assert any(None in row for row in rows)
    assert read_lake(root, "daily_metrics", " ".join(names)) == rows
    assert [(t,) for _, t in read_lake(root, "universes", "universe ticker")] == members


def test_publishing_again_writes_nothing(database: Path, root: Path) -> None:
    publish_here(database, root)
    before = list_files(root)
    again = publish_here(database, root)
    assert (again.is_new, again.files, again.version) == (False, 0, 1)
    assert list_files(root) == before


def test_only_files_with_changed_rows_are_written(database: Path, root: Path) -> None:
    publish_here(database, root)
    before = {key: part.path for key, part in open_lake(Store(str(root))).parts.items()}
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE ohlcv_data SET close = close + 0.0001 WHERE id = (SELECT max(id) "
            "FROM ohlcv_data WHERE ticker = 'ZAAB' AND timeframe = '5min')"
        )
    publish_here(database, root)
    after = {key: part.path for key, part in open_lake(Store(str(root))).parts.items()}
    changed = [key for key in after if after[key] != before.get(key)]
    assert [(key.table, key.period, key.bucket) for key in changed] == [
        ("bars_5min", "2026-02", bucket_of("ZAAB"))
    ]
    assert read_lake(root, "bars_5min", BARS) == read_database(database, "5min")
    assert read_lake(root, "bars_5min", BARS, version=1) != read_database(database, "5min")


def test_ticker_that_left_the_database_leaves_the_lake(database: Path, root: Path) -> None:
    publish_here(database, root)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM ohlcv_data WHERE ticker = 'NA'")
        connection.execute("DELETE FROM daily_metrics WHERE ticker = 'NA'")
    publish_here(database, root)
    assert {row[0] for row in read_lake(root, "daily_metrics", BARS)} == {
        row[0] for row in read_lake(root, "bars_1day", BARS)
    }
    assert "NA" not in {row[0] for row in read_lake(root, "bars_5min", BARS)}


def test_emptied_database_is_not_published_unless_that_is_meant(database: Path, root: Path) -> None:
    publish_here(database, root)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM ohlcv_data")
    with pytest.raises(VerificationError, match="0 day bars") as caught:
        publish_here(database, root)
    assert "--accept-fewer-rows" in caught.value.next_step
    assert open_lake(Store(str(root))).number == 1
    publish_here(database, root, accept_fewer_rows=True)
    assert read_lake(root, "bars_1day", BARS) == []


def test_missing_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFileError, match="no database at"):
        publish_here(tmp_path / "none.db", tmp_path / "lake")


def test_publication_is_of_one_moment_beside_a_writer(original: Path, tmp_path: Path) -> None:
    """The writer adds a session to all tickers in one transaction, again and again: all or none is
    published."""
    database, root = tmp_path / "busy.db", tmp_path / "lake"
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")
    writer = start_tool("write", database)
    wait_until_ready(writer)
    sizes = set()
    try:
        for _ in range(4):
            publish_here(database, root)
            rows = read_lake(root, "bars_1day", "timestamp ticker")
            newest = [ticker for stamp, ticker in rows if stamp == max(rows)[0]]
            assert len(newest) == len(TICKERS)
            sizes.add(len(rows))
    finally:
        writer.kill()
        writer.communicate()
    assert len(sizes) == 4  # it wrote meanwhile


def publish_with_kills(database: Path, root: Path, kills: int, seed: int) -> None:
    """Kill publications at seeded moments beside a reader that sees whole versions only; end
    whole."""
    publish_here(database, root)
    dice = random.Random(seed)
    longest = 1.2 * measure_seconds(start_tool("publish", database, root))
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        stop = root.with_name("stop reading")
        reader = start_tool("read", root, stop)
        wait_until_ready(reader)
        killed = 0
        for _ in range(kills):
            with connection:  # something of everything: each version has as many metrics as bars
                connection.execute(
                    "UPDATE ohlcv_data SET close = close * 1.01 WHERE timeframe = '1day'"
                )
                connection.execute("UPDATE daily_metrics SET close = close * 1.01")
                take_newest_day_away(connection)
            killed += kill_at_random(start_tool("publish", database, root), dice, longest)
        stop.touch()
        out, err = reader.communicate(timeout=300)
    assert reader.returncode == 0, err
    assert killed and json.loads(out)["reads"] > 0
    publish_here(database, root)
    for table, timeframe in (("bars_1day", "1day"), ("bars_5min", "5min")):
        assert read_lake(root, table, BARS) == read_database(database, timeframe)
    fresh = root.with_name("fresh")
    publish_here(database, fresh)
    contents = [
        {key: part.content for key, part in open_lake(Store(str(place))).parts.items()}
        for place in (root, fresh)
    ]
    assert contents[0] == contents[1]


def test_killed_publications_leave_whole_versions_and_the_same_end(
    original: Path, tmp_path: Path
) -> None:
    database = tmp_path / "killed.db"
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)
    publish_with_kills(database, tmp_path / "lake", KILLS, seed=13)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_killed_publications_leave_whole_versions_and_the_same_end(
    original: Path, tmp_path: Path, seed: int
) -> None:
    database = tmp_path / "killed.db"
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)
    publish_with_kills(database, tmp_path / "lake", 50, seed)
