"""Versions: whole, one after the other, and old ones readable until they are cleaned away."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from backtestdb.errors import BusyError
from backtestdb.lake.clean import clean
from backtestdb.lake.layout import SCHEMAS, PartKey
from backtestdb.lake.store import Store
from backtestdb.lake.table import (
    Draft,
    LakeError,
    Version,
    commit_table,
    open_delta,
    open_lake,
    write_part,
)
from lake_tools import list_files

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BARS = PartKey("bars_1day", "2026", 3)
UNIVERSES = PartKey("universes")


def make_bars(close: float) -> pa.Table:
    values = {"ticker": "AAPL", "session_date": NOW.date(), "timestamp": NOW, "volume": 1}
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return pa.Table.from_pylist([{**values, **prices}], schema=SCHEMAS["bars_1day"])


def make_universe(close: float) -> pa.Table:
    return pa.Table.from_pylist(
        [{"universe": "u", "ticker": "AAPL", "market_cap": close}], schema=SCHEMAS["universes"]
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "a lake"))


def publish(store: Store, close: float, day: int = 0) -> Version:
    draft = Draft(open_lake(store, may_be_missing=True), "test")
    draft.put(BARS, make_bars(close))
    draft.put(UNIVERSES, make_universe(close))
    return draft.commit(NOW + timedelta(days=day))


def read(version: Version) -> tuple[float, float]:
    return version.read(BARS)["close"][0].as_py(), version.read(UNIVERSES)["market_cap"][0].as_py()


def test_draft_shows_nothing_before_its_commit_and_all_after_it(store: Store) -> None:
    publish(store, 1.0)
    draft = Draft(open_lake(store), "test")
    draft.put(BARS, make_bars(2.0))
    commit_table(store, "bars_1day", [draft.parts[BARS]])  # as far as a killed publication may come
    assert read(open_lake(store)) == (1.0, 1.0)
    draft.put(UNIVERSES, make_universe(2.0))
    assert read(draft.commit(NOW)) == (2.0, 2.0)
    assert read(open_lake(store)) == (2.0, 2.0)
    assert read(open_lake(store, 1)) == (1.0, 1.0)


def test_what_an_interrupted_publication_left_is_not_in_the_next_version(store: Store) -> None:
    base = publish(store, 1.0)
    left = write_part(store, PartKey("bars_1day", "2025", 9), make_bars(7.0))
    commit_table(store, "bars_1day", [*base.parts_of("bars_1day"), left])
    after = publish(store, 2.0)
    assert {part.path for part in after.parts_of("bars_1day")} == {
        f"bars_1day/{path}"
        for path in pa.table(after.delta("bars_1day").get_add_actions())["path"].to_pylist()
    }
    assert not any("period=2025" in uri for uri in open_delta(store, "bars_1day").file_uris())


def test_same_content_again_is_no_version_and_no_file(store: Store) -> None:
    publish(store, 1.0)
    before = list_files(Path(store.root))
    assert publish(store, 1.0).number == 1
    assert list_files(Path(store.root)) == before


def test_second_of_two_publications_at_once_is_refused_and_changes_nothing(store: Store) -> None:
    publish(store, 1.0)
    one, other = (Draft(open_lake(store), "test") for _ in range(2))
    for draft, close in ((one, 2.0), (other, 3.0)):
        draft.put(BARS, make_bars(close))
    assert one.commit(NOW).number == 2
    with pytest.raises(BusyError, match="another publication"):
        other.commit(NOW)
    assert read(open_lake(store)) == (2.0, 1.0)
    assert open_lake(store).number == 2


def test_second_of_two_first_publications_is_refused(store: Store) -> None:
    one, other = (Draft(open_lake(store, may_be_missing=True), "test") for _ in range(2))
    for draft, close in ((one, 2.0), (other, 3.0)):
        draft.put(BARS, make_bars(close))
    one.commit(NOW)
    with pytest.raises(BusyError):
        other.commit(NOW)
    assert open_lake(store).read(BARS)["close"][0].as_py() == 2.0


def test_part_without_rows_goes_and_comes_again(store: Store) -> None:
    publish(store, 1.0)
    draft = Draft(open_lake(store), "test")
    draft.put(BARS, make_bars(1.0).slice(1))
    assert BARS not in draft.commit(NOW).parts
    assert read(publish(store, 1.0)) == (1.0, 1.0)


def test_old_versions_are_readable_until_they_are_cleaned_away(store: Store) -> None:
    for day in range(5):
        publish(store, float(day), day)
    files = list_files(Path(store.root))
    done = clean(store, NOW + timedelta(days=5), keep_versions=1, keep_days=2.5, spare_hours=0)
    assert (done.versions_kept, done.versions_forgotten) == (2, 3)
    assert [read(open_lake(store, number)) for number in (4, 5)] == [(3.0, 3.0), (4.0, 4.0)]
    assert (
        len([name for name in list_files(Path(store.root)) if name.startswith("bars_1day/period")])
        == 2
    )
    assert len([name for name in files if name.startswith("bars_1day/period")]) == 5
    with pytest.raises(LakeError, match="4 to 5") as caught:
        open_lake(store, 1)
    assert caught.value.next_step == "make lake-query ARGS=--versions"
    assert publish(store, 9.0, 6).number == 6


def test_cleaning_spares_files_that_were_needed_within_the_hours(store: Store) -> None:
    publish(store, 1.0)
    publish(store, 2.0)
    left = write_part(store, PartKey("bars_1day", "2025", 9), make_bars(7.0))
    clean(store, NOW + timedelta(days=30), keep_versions=1, keep_days=0, spare_hours=24)
    assert store.exists(left.path)
    clean(store, NOW + timedelta(days=30), keep_versions=1, keep_days=0, spare_hours=0)
    assert not store.exists(left.path)
    assert read(open_lake(store)) == (2.0, 2.0)
