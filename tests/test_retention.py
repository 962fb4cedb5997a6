"""Retention over random histories: what is kept is always the newest verified ones, and never fewer."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestdb.backups.catalogue import (
    choose_name,
    choose_taken_at,
    load_catalogue,
    scripts_path_of,
    verified,
)
from backtestdb.backups.manifest import FORMAT, Kind, Manifest, write_manifest
from backtestdb.backups.retention import choose_expired, remove_backup

START = datetime(2026, 10, 30, tzinfo=UTC)
EVENTS = st.tuples(
    st.sampled_from(["full", "irreplaceable", "failed", "foreign", "damaged", "manifest damaged", "lost"]),
    st.sampled_from([0, 1, 60, 3600, 86_400, 40 * 86_400, -1, -3600, -86_400 * 3]),
)
HISTORIES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.lists(EVENTS, max_size=14))
History = tuple[int, int, list[tuple[str, int]]]


def write_backup(folder: Path, kind: Kind, now: datetime) -> Path:
    """A file with a manifest that is true to it, as far as a catalogue looks."""
    path = choose_name(folder, kind, now)
    assert not path.exists()
    path.write_bytes(b"x")
    if kind == "full":
        scripts_path_of(path).mkdir()
    manifest = Manifest(
        format=FORMAT,
        kind=kind,
        file=path.name,
        taken_at_utc=choose_taken_at(load_catalogue(folder), now),
        clock_utc=now,
        source_path="/live.db",
        database_id="",
        earlier_paths=(),
        schema_version=1,
        bytes=1,
        sha256="",
        sqlite_version="",
        check="quick_check",
        rows={},
        foreign_key_violations=0,
        content_sha256={},
        structure_sha256="",
        generated_scripts=None,
    )
    write_manifest(manifest, path.with_suffix(".json"))
    return path


def live_through(folder: Path, history: History) -> None:
    keep_full, keep_small, events = history
    now = START
    made: dict[Kind, list[Path]] = {"full": [], "irreplaceable": []}
    never_touched: list[Path] = []
    for event, seconds in events:
        now += timedelta(seconds=seconds)
        if event == "foreign":
            never_touched.append(choose_name(folder, "full", now))
            never_touched[-1].write_bytes(b"of somebody else")
        elif event in made:
            kind: Kind = "full" if event == "full" else "irreplaceable"
            made[kind].append(write_backup(folder, kind, now))
            keep = keep_full if kind == "full" else keep_small
            expected = made[kind][-keep:]
            for backup in choose_expired(load_catalogue(folder), kind, keep):
                made[kind].remove(backup.path)
                remove_backup(backup)
            assert made[kind] == expected
        elif event != "failed" and made["full"]:
            victim = made["full"].pop()
            if event == "damaged":
                victim.write_bytes(b"longer")
                never_touched.append(victim)
            elif event == "manifest damaged":
                victim.with_suffix(".json").write_text('{"format": 1}')
                never_touched.append(victim)
            else:
                victim.unlink()
        for kind, paths in made.items():
            assert [backup.path for backup in verified(load_catalogue(folder), kind)] == paths[::-1]
        assert all(path.exists() for path in never_touched)
    scripts = {path.name for path in folder.glob("claude-scripts-*")}
    assert {scripts_path_of(path).name for path in made["full"]} <= scripts


def run_history(history: History) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live_through(Path(folder), history)


@given(HISTORIES)
@settings(max_examples=60, deadline=None)
def test_retention_keeps_the_newest_verified_ones(history: History) -> None:
    run_history(history)


@pytest.mark.long
@pytest.mark.timeout(1200)
@given(HISTORIES)
@settings(max_examples=2000, deadline=None)
def test_retention_over_2000_histories(history: History) -> None:
    run_history(history)


def test_retention_of_none_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="always stays"):
        choose_expired([], "full", 0)
