"""From a machine that is gone to a database that is back."""

import logging
import random
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from backtestdb.offsite.restore import parse_moment
from backtestdb.offsite.send_full import send_full
from backtestdb.offsite.watch import make_sender, make_watch, newest_backup
from backup_tools import add_strategy, change, make_platform_database, read_all, strategy_names
from commands import Project
from offsite_tools import PASSPHRASE, Site, make_site, read_hashes, wipe
from s3_server import S3Server


def make_filled_site(folder: Path, *, journal: str = "WAL") -> Site:
    site = make_site(folder)
    make_platform_database(site.settings.database_path, journal=journal)
    scripts = site.settings.generated_scripts_dirs[0]
    scripts.mkdir()
    (scripts / "agent.py").write_text("print('made by an agent')\n")
    (scripts / "again.py").symlink_to("agent.py")
    site.init()
    return site


def test_a_machine_that_is_gone_comes_back_by_the_commands_of_the_guide(
    tmp_path: Path, s3: S3Server
) -> None:
    """Every command as its own process, a server of S3, an empty folder at the end."""
    project = Project(tmp_path)
    project.settings |= s3.environment(f"test-{random.getrandbits(40):x}/ai-backtest")
    project.settings["OFFSITE_PASSPHRASE"] = PASSPHRASE
    make_platform_database(project.database, journal="WAL")
    sheet = project.check("run_offsite.py", "init")
    assert "RECOVERY SHEET" in sheet
    assert "conditional writes" in sheet
    assert PASSPHRASE not in sheet
    project.check("backup_database.py")
    project.check("run_offsite.py", "send")
    expected = read_all(project.database)

    wipe(*tmp_path.iterdir())
    said = project.check("restore_database.py", "--from-offsite", "--yes")
    assert "fetched full-base" in said
    assert read_all(project.database) == expected


def test_full_small_and_minute_come_back_together_with_the_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_filled_site(tmp_path)
    database = site.settings.database_path
    site.back_up()
    site.send()
    change(database, "in the small backup")
    site.back_up("irreplaceable")
    site.send()
    change(database, "after the backup")
    site.send()
    assert {name.copy_class for name in site.copies()} == {
        "full-base",
        "small-base",
        "small-delta",
        "minute",
    }
    expected = read_all(database)
    assert site.check(capsys)[0] == 0

    site.wipe()
    code, said = site.restore(capsys)
    assert (code, "fetched minute" in said) == (0, True)
    assert read_all(database) == expected
    scripts = site.settings.generated_scripts_dirs[0]
    assert (scripts / "agent.py").read_text() == "print('made by an agent')\n"
    assert (scripts / "again.py").is_symlink()


def test_the_next_full_backup_sends_the_pages_that_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_filled_site(tmp_path)
    database = site.settings.database_path
    with closing(sqlite3.connect(database)) as connection, connection:
        chance = random.Random(1)
        connection.executemany(
            "INSERT INTO ohlcv_data (ticker, timestamp, timeframe, open, high, low, close, volume)"
            " VALUES (?, ?, '1day', ?, 9, 1, 5, 7)",
            [(f"T{n % 500}", n, chance.random()) for n in range(30_000)],
        )
    site.back_up()
    site.send()
    change(database, "one more")
    site.back_up()
    site.send()
    sent = {
        name: folder_bytes(tmp_path / "elsewhere" / name) for name in ("full-base", "full-delta")
    }
    assert 0 < sent["full-delta"] < 0.08 * sent["full-base"]

    expected = read_all(database)
    site.wipe()
    code, said = site.restore(capsys)
    assert (code, "fetched full-delta" in said) == (0, True)
    assert read_all(database) == expected


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_an_upload_that_was_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    site = make_filled_site(tmp_path)
    site.back_up()
    segments = tmp_path / "elsewhere/full-base/segments"

    class CutError(Exception):
        pass

    for fails_at in (2, 4, None):
        watch = make_watch(site.settings, logging.getLogger("test"), threading.Event())
        sender = make_sender(watch, "full")
        sender.state.segment_bytes = 100_000
        store, calls = sender.remote.store, [0]
        put = store.put

        def counted(name: str, data: bytes, calls=calls, fails_at=fails_at, put=put) -> None:  # type: ignore[no-untyped-def]
            calls[0] += 1
            if calls[0] == fails_at:
                raise CutError
            put(name, data)

        store.put = counted  # type: ignore[method-assign]
        backup = newest_backup(watch, "full")
        assert backup
        if fails_at:
            with pytest.raises(CutError):
                send_full(sender, backup)
        else:
            send_full(sender, backup)
    pieces = -(-backup.bytes // 100_000)
    assert len(list(segments.iterdir())) == pieces + 1  # the scripts are one more


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_minute_comes_back_beside_the_database_and_then_in_its_place(
    journal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way out after a bad script: look first, then put the tables of that moment back; bars
    stay."""
    site = make_filled_site(tmp_path, journal=journal)
    database = site.settings.database_path
    site.send()
    change(database, "worth keeping")
    site.send()
    good, good_names = read_hashes(database)[0], strategy_names(database)
    moment = max(name.taken_at_utc for name in site.copies())

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM strategies WHERE id % 2 = 0")
        connection.execute("UPDATE strategies SET ticker = 'WRONG' WHERE id = 1")
        add_strategy(connection, "bad")
        connection.execute("CREATE TABLE junk (n INTEGER)")
        connection.execute("UPDATE ohlcv_data SET volume = 77 WHERE id = 1")
    site.send()

    local = moment.astimezone().isoformat(sep=" ")
    said = site.restore(capsys, local, beside=True)[1]
    beside = next(database.parent.glob("backtesting.db.of-*"))
    assert strategy_names(beside) == good_names
    assert said_row(said, "strategies") == ["1", "25", "1"]
    assert "the table is new" in said
    assert "bad" in strategy_names(database)

    assert site.restore(capsys, local)[0] == 0
    assert strategy_names(database) == good_names
    assert read_hashes(database)[0].items() >= good.items()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT volume FROM ohlcv_data WHERE id = 1").fetchone() == (77,)


def said_row(said: str, table: str) -> list[str]:
    """Rows added, removed and changed of one table."""
    line = next(line for line in said.splitlines() if line.startswith("│") and f" {table} " in line)
    return line.replace("│", " ").split()[1:4]


def test_a_time_before_the_first_copy_is_refused_with_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_filled_site(tmp_path)
    site.send()
    code, said = site.restore(capsys, "2020-01-01")
    assert code == 1
    assert "holds no copy taken by 2020-01-01" in said
    assert "next: make offsites" in said
    code, said = site.restore(capsys, "soon")
    assert (code, "is no time like" in said) == (2, True)


def test_a_damaged_newest_copy_is_passed_over_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_filled_site(tmp_path)
    database = site.settings.database_path
    site.back_up()
    site.send()
    before = strategy_names(database)
    change(database, "in the copy that breaks")
    site.send()
    (newest,) = (tmp_path / "elsewhere/minute/segments").iterdir()
    newest.write_bytes(newest.read_bytes()[:-3])
    code, said = site.check(capsys)
    assert (code, "is damaged" in said) == (1, True)

    site.wipe()
    code, said = site.restore(capsys)
    assert (code, "passed over minute" in said) == (0, True)
    assert strategy_names(database) == before


@pytest.mark.parametrize("which", ["database", "scripts"])
def test_a_base_that_a_check_found_damaged_is_sent_anew(
    which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_filled_site(tmp_path)
    site.back_up()
    site.send()
    sizes = sorted(
        (tmp_path / "elsewhere/full-base/segments").iterdir(), key=lambda path: path.stat().st_size
    )
    sizes[-1 if which == "database" else 0].write_bytes(b"rust")
    for segment in (tmp_path / "elsewhere/small-base/segments").iterdir():
        segment.write_bytes(b"rust")
    if which == "scripts":
        wiped = make_site(tmp_path / "other")
        code, said = Site(replace_offsite(wiped, site)).restore(capsys)
        assert (code, "restoring without them" in said) == (0, True)
    assert site.check(capsys)[0] == 1
    site.send()

    expected = read_all(site.settings.database_path)
    site.wipe()
    assert site.restore(capsys)[0] == 0
    assert read_all(site.settings.database_path) == expected


def replace_offsite(site: Site, other: Site):  # type: ignore[no-untyped-def]
    return replace(site.settings, offsite=other.settings.offsite)


def test_two_databases_on_one_target_are_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second checkout: each gets its own back, a new machine has to say which, a full one is not
    replaced."""
    one, other = make_filled_site(tmp_path / "one"), make_site(tmp_path / "other")
    other = Site(replace(other.settings, offsite=one.settings.offsite))
    make_platform_database(other.settings.database_path, word="other")
    for site in (one, other):
        site.back_up()
        site.send()
    expected = read_all(one.settings.database_path)
    one.wipe()
    assert one.restore(capsys)[0] == 0
    assert read_all(one.settings.database_path) == expected

    third = make_site(tmp_path / "third")
    third = Site(replace(third.settings, offsite=one.settings.offsite))
    code, said = third.restore(capsys)
    assert (code, "the copies there are of other databases" in said) == (1, True)
    writer = said.split(f"{other.settings.database_path} of ")[1].split("(writer ")[1][:8]
    assert third.restore(capsys, writer=writer)[0] == 0
    assert strategy_names(third.settings.database_path) == strategy_names(
        other.settings.database_path
    )


def test_a_new_machine_takes_the_only_database_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = make_filled_site(tmp_path / "old")
    old.back_up()
    old.send()
    new = make_site(tmp_path / "new")
    new = Site(replace(new.settings, offsite=old.settings.offsite))
    code, said = new.restore(capsys)
    assert (code, "the only ones there" in said) == (0, True)
    assert strategy_names(new.settings.database_path) == strategy_names(old.settings.database_path)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2026-11-24", "2026-11-24 23:59:59.999999"),
        ("2026-11-24 14:05", "2026-11-24 14:05:59.999999"),
        ("2026-11-24 14:05:07", "2026-11-24 14:05:07.999999"),
        ("2026-11-24 14:05:07.5", "2026-11-24 14:05:07.500000"),
    ],
)
def test_a_time_means_its_end(text: str, end: str) -> None:
    assert parse_moment(text) == datetime.fromisoformat(end).astimezone()
