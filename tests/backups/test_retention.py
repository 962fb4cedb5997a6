"""Retention over random histories: what age keeps, and what it never gives up."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestdb.backups.catalogue import (
    FAILED_DRILL,
    Backup,
    choose_name,
    choose_taken_at,
    load_catalogue,
    scripts_path_of,
    verified,
)
from backtestdb.backups.leftovers import clean_leftovers
from backtestdb.backups.manifest import Kind, write_manifest
from backtestdb.backups.retention import (
    Retention,
    choose_expired,
    choose_to_give_way,
    make_retention,
    remove_backup,
)
from backtestdb.backups.shrinkage import find_losses, find_newest, load_expected
from backup_tools import make_settings
from manifests import make_backup_of, make_manifest

START = datetime(2026, 10, 30, tzinfo=UTC)
TABLES = ("agents", "notes")
EVENTS = st.tuples(
    st.sampled_from(
        [
            "full",
            "irreplaceable",
            "accept",
            "failed",
            "foreign",
            "damaged",
            "manifest damaged",
            "lost",
        ]
    ),
    st.sampled_from([0, 1, 60, 3600, 86_400, 40 * 86_400, -1, -3600, -86_400 * 3]),
    st.tuples(*[st.sampled_from([0, 1, 19, 20, 40, 41]) for _ in TABLES]),
)
COUNTS = st.integers(0, 3)
RETENTIONS = {
    "full": st.builds(Retention, newest=st.integers(1, 4), weekly=COUNTS, monthly=COUNTS),
    "irreplaceable": st.builds(
        Retention,
        all_of=st.sampled_from([timedelta(0), timedelta(hours=48)]),
        hourly=COUNTS,
        daily=COUNTS,
        weekly=COUNTS,
        monthly=COUNTS,
    ),
}
HISTORIES = st.tuples(st.fixed_dictionaries(RETENTIONS), st.lists(EVENTS, max_size=14))
History = tuple[dict[Kind, Retention], list[tuple[str, int, tuple[int, ...]]]]


def write_backup(
    folder: Path,
    kind: Kind,
    now: datetime,
    rows: Mapping[str, int] | None = None,
    *,
    accept: bool = False,
    size: int = 1,
) -> Path:
    """A file with a manifest that is true to it, as far as a catalogue looks."""
    path = choose_name(folder, kind, now)
    assert not path.exists()
    path.write_bytes(b"x" * size)
    if kind == "full":
        scripts_path_of(path).mkdir()
    rows = rows or {}
    catalogue = load_catalogue(folder)
    newest = find_newest(catalogue)
    manifest = make_manifest(
        path,
        kind,
        choose_taken_at(catalogue, now),
        rows,
        clock_utc=now,
        bytes=size,
        losses=find_losses(load_expected(newest.manifest if newest else None), rows),
        accepts_loss=accept,
    )
    write_manifest(manifest, path.with_suffix(".json"))
    return path


def best_counts(backups: Sequence[Backup]) -> dict[str, int]:
    """The most rows of each table in any backup since the newest that accepted a loss: told once
    more, in the plainest way."""
    best: dict[str, int] = {}
    for backup in backups:
        assert backup.manifest
        for table, rows in backup.manifest.rows.items():
            best[table] = max(best.get(table, 0), rows)
        if backup.manifest.accepts_loss:
            break
    return best


def live_through(folder: Path, history: History) -> None:
    retentions, events = history
    now = START
    never_touched: list[Path] = []
    for event, seconds, counts in events:
        now += timedelta(seconds=seconds)
        rows = dict(zip(TABLES, counts, strict=True))
        if event == "foreign":
            never_touched.append(choose_name(folder, "full", now))
            never_touched[-1].write_bytes(b"of somebody else")
        elif event in {"full", "irreplaceable", "accept"}:
            kind: Kind = "irreplaceable" if event == "irreplaceable" else "full"
            write_backup(folder, kind, now, rows, accept=event == "accept")
            prune_and_compare(folder, kind, retentions[kind])
        elif event != "failed" and (made := verified(load_catalogue(folder), "full")):
            victim = made[0].path
            if event == "damaged":
                victim.write_bytes(b"longer")
                never_touched.append(victim)
            elif event == "manifest damaged":
                victim.with_suffix(".json").write_text('{"format": 1}')
                never_touched.append(victim)
            else:
                victim.unlink()
        assert all(path.exists() for path in never_touched)
    scripts = {path.name for path in folder.glob("claude-scripts-*")}
    kept = {
        scripts_path_of(backup.path).name for backup in verified(load_catalogue(folder), "full")
    }
    assert kept <= scripts


def prune_and_compare(folder: Path, kind: Kind, retention: Retention) -> None:
    before = load_catalogue(folder)
    counted = [backup for backup in before if backup.counts]
    for backup in choose_expired(before, kind, retention, UTC):
        remove_backup(backup)
    ours, left = verified(before, kind), verified(load_catalogue(folder), kind)

    assert [backup.path for backup in left[: retention.newest]] == [
        b.path for b in ours[: retention.newest]
    ]
    young = [b.path for b in ours if ours[0].taken_at_utc - b.taken_at_utc <= retention.all_of]
    assert set(young) <= {backup.path for backup in left}
    good = [backup.path for backup in ours if not backup.is_suspicious]
    assert good[:1] == [backup.path for backup in left if not backup.is_suspicious][:1]
    still = [backup for backup in load_catalogue(folder) if backup.counts]
    # With the backup that accepted a loss its acceptance goes too: what is kept may then be more.
    best = best_counts(still)
    assert all(best.get(table, 0) >= rows for table, rows in best_counts(counted).items())
    limit = retention.newest + len(young) + len(TABLES) + 1
    limit += retention.hourly + retention.daily + retention.weekly + retention.monthly
    assert len(left) <= limit


def run_history(history: History) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live_through(Path(folder), history)


@given(HISTORIES)
def test_retention_never_gives_up_the_newest_and_the_highest_count(history: History) -> None:
    run_history(history)


@pytest.mark.long
@pytest.mark.timeout(3000)
@given(HISTORIES)
@settings(max_examples=10_000, deadline=None)
def test_retention_over_10000_histories(history: History) -> None:
    run_history(history)


@pytest.mark.parametrize("newest", [0, -1])
def test_retention_of_none_is_a_mistake_of_the_caller(newest: int) -> None:
    with pytest.raises(ValueError, match="always stays"):
        choose_expired([], "full", Retention(newest=newest))


def test_retention_comes_from_the_settings_of_its_kind(tmp_path: Path) -> None:
    counts = {"keep_full_weekly": 2, "keep_full_monthly": 3, "keep_small_hourly": 4}
    counts |= {"keep_small_daily": 5, "keep_small_weekly": 6, "keep_small_monthly": 7}
    settings = make_settings(tmp_path, max_backups=9, **counts)
    assert make_retention(settings, "full") == Retention(
        newest=9, all_of=timedelta(0), hourly=0, daily=0, weekly=2, monthly=3
    )
    assert make_retention(settings, "irreplaceable") == Retention(
        newest=1, all_of=timedelta(days=2), hourly=4, daily=5, weekly=6, monthly=7
    )


def live_for(kind: Kind, retention: Retention, *, days: int, every: timedelta) -> list[datetime]:
    """Make a backup `every` so often, prune after each; return when those were taken that are left,
    newest first."""
    left: list[Backup] = []
    for number in range(timedelta(days=days) // every):
        now, path = START + number * every, Path(f"backtesting-{number}.db")
        manifest = make_manifest(path, kind, now, {})
        left = [make_backup_of(path, manifest), *left]
        expired = {backup.path for backup in choose_expired(left, kind, retention, UTC)}
        left = [backup for backup in left if backup.path not in expired]
    return [backup.taken_at_utc for backup in left]


def gaps(ages: Sequence[timedelta]) -> set[timedelta]:
    return {later - earlier for earlier, later in itertools.pairwise(ages)}


def test_small_backups_thin_out_with_age() -> None:
    """Hours, then days, then weeks, then months, each rule where the one before it ends."""
    retention = Retention(all_of=timedelta(hours=6), hourly=12, daily=5, weekly=3, monthly=2)
    left = live_for("irreplaceable", retention, days=120, every=timedelta(minutes=30))
    ages = [left[0] - taken for taken in left]
    assert len(left) == 13 + 12 + 5 + 3 + 2
    assert ages[12] == timedelta(hours=6)  # every half hour of six hours
    assert gaps(ages[13:25]) == {timedelta(hours=1)}
    assert gaps(ages[26:30]) == {timedelta(days=1)}
    assert gaps(ages[31:33]) == {timedelta(days=7)}
    assert timedelta(days=28) <= ages[34] - ages[33] <= timedelta(days=31)


def test_full_backups_reach_back_by_weeks_and_months_beyond_the_newest() -> None:
    retention = Retention(newest=30, weekly=4, monthly=3)
    left = live_for("full", retention, days=300, every=timedelta(days=1))
    assert len(left) == 30 + 4 + 3
    assert left[29] == left[0] - timedelta(days=29)
    assert all(taken.isoweekday() == 7 for taken in left[30:34])
    assert Counter(taken.month for taken in left[34:]).most_common(1)[0][1] == 1
    assert left[0] - left[-1] > timedelta(days=110)


def test_days_of_retention_are_local_days(tmp_path: Path) -> None:
    """23:30 and 00:30 in New York are two days there, and one in UTC."""
    for hour in (3, 4):
        write_backup(tmp_path, "irreplaceable", datetime(2026, 11, 20, hour + 1, 30, tzinfo=UTC))
    write_backup(tmp_path, "irreplaceable", datetime(2026, 11, 25, tzinfo=UTC))
    catalogue = load_catalogue(tmp_path)
    daily = Retention(daily=5)
    assert choose_expired(catalogue, "irreplaceable", daily, ZoneInfo("America/New_York")) == []
    assert len(choose_expired(catalogue, "irreplaceable", daily, UTC)) == 1


def test_oldest_full_backups_give_way_down_to_the_minimum_when_that_helps(tmp_path: Path) -> None:
    made = [
        write_backup(tmp_path, "full", START + timedelta(days=day), size=100) for day in range(9)
    ]
    catalogue = load_catalogue(tmp_path)
    chosen = choose_to_give_way(catalogue, 150, 7)
    assert [backup.path for backup in chosen] == made[:2]
    assert choose_to_give_way(catalogue, 201, 7) == []  # all of them would not be enough
    assert choose_to_give_way(catalogue[:7], 1, 7) == []


def test_backup_with_the_highest_count_does_not_give_way(tmp_path: Path) -> None:
    highest = write_backup(tmp_path, "full", START, {"agents": 41})
    second = write_backup(tmp_path, "full", START + timedelta(days=1), {"agents": 40})
    for day in range(2, 9):
        write_backup(tmp_path, "full", START + timedelta(days=day), {"agents": 40})
    chosen = choose_to_give_way(load_catalogue(tmp_path), 1, 7)
    assert [backup.path for backup in chosen] == [second]
    assert highest.exists()


@pytest.mark.parametrize(
    ("missing_bytes", "min_backups", "given"),
    [(1, 3, 1), (100, 3, 1), (101, 3, 2), (200, 3, 2), (201, 3, 0), (400, 1, 4), (401, 1, 0)],
)
def test_just_enough_gives_way(
    tmp_path: Path, missing_bytes: int, min_backups: int, given: int
) -> None:
    made = [
        write_backup(tmp_path, "full", START + timedelta(days=day), size=100) for day in range(5)
    ]
    write_backup(tmp_path, "irreplaceable", START - timedelta(days=1), size=10_000)
    chosen = choose_to_give_way(load_catalogue(tmp_path), missing_bytes, min_backups)
    assert [backup.path for backup in chosen] == made[:given]


def test_last_backup_does_not_give_way_even_when_none_has_to_stay(tmp_path: Path) -> None:
    write_backup(tmp_path, "full", START, size=100)
    assert choose_to_give_way(load_catalogue(tmp_path), 1, 0) == []


def test_only_the_newest_backup_without_a_loss_is_beyond_the_numbers(tmp_path: Path) -> None:
    made = [
        write_backup(tmp_path, "full", START + timedelta(days=day), {"agents": agents})
        for day, agents in enumerate([40, 40, 40, 0])
    ]
    expired = choose_expired(load_catalogue(tmp_path), "full", Retention(newest=1))
    assert [backup.path for backup in expired] == [made[1], made[0]]


def test_removed_backup_takes_what_belongs_to_it_and_nothing_else(tmp_path: Path) -> None:
    path = write_backup(tmp_path, "full", START)
    scripts = scripts_path_of(path)
    (scripts / "one.py").write_text("print()")
    failed = path.with_suffix(FAILED_DRILL)
    failed.write_text("it could not be restored")
    other = write_backup(tmp_path, "full", START + timedelta(days=1))
    stranger = tmp_path / "notes.expired"
    stranger.write_text("not ours")

    (backup,) = [one for one in load_catalogue(tmp_path) if one.path == path]
    steps: list[str] = []
    remove_backup(backup, steps.append)

    of_other = {other.name, other.with_suffix(".json").name, scripts_path_of(other).name}
    left = {*of_other, stranger.name}
    assert {one.name for one in tmp_path.iterdir()} == left
    assert steps == ["expired", "expired database removed"]
    clean_leftovers(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == left


def test_newest_backup_without_a_loss_stays_beside_newer_suspicious_ones(tmp_path: Path) -> None:
    for day, agents in enumerate([41, 40, 0, 0]):
        write_backup(tmp_path, "full", START + timedelta(days=day), {"agents": agents})
    expired = choose_expired(load_catalogue(tmp_path), "full", Retention(newest=1))
    assert [backup.manifest.rows["agents"] for backup in expired if backup.manifest] == [0]


def test_removal_that_was_interrupted_spares_the_backup_that_was_adopted_since(
    tmp_path: Path,
) -> None:
    path = write_backup(tmp_path, "full", START)
    manifest = path.with_suffix(".json")
    path.with_suffix(".expired").write_bytes(manifest.read_bytes())
    clean_leftovers(tmp_path)
    assert path.exists()
    assert manifest.exists()
    assert not path.with_suffix(".expired").exists()
    manifest.rename(path.with_suffix(".expired"))
    clean_leftovers(tmp_path)
    assert not path.exists()
