"""A copy of a database that had lost rows does not come back by itself, as no such backup does."""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from backup_tools import change, make_platform_database, strategy_names
from offsite_tools import Site, make_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A database of 50 strategies whose full backup was sent."""
    site = make_site(tmp_path)
    make_platform_database(site.settings.database_path, bars=10)
    site.init()
    site.back_up()
    site.send()
    return site


def empty(site: Site) -> None:
    with closing(sqlite3.connect(site.settings.database_path)) as connection, connection:
        connection.execute("DELETE FROM strategies")


def names(site: Site) -> list[str]:
    return strategy_names(site.settings.database_path)


@pytest.mark.parametrize("sent", ["full", "irreplaceable", "minute"])
def test_copy_of_an_emptied_database_is_passed_over_and_said(
    site: Site, capsys: pytest.CaptureFixture[str], sent: str
) -> None:
    change(site.settings.database_path, "last")
    site.send()
    empty(site)
    if sent != "minute":
        site.back_up("full" if sent == "full" else "irreplaceable")
    site.send()
    site.wipe()
    code, said = site.restore(capsys)
    assert code == 0
    assert "suspicious, passed over: " in said
    assert "strategies: 50 on " in said
    assert "0 now" in said
    assert names(site)[-1] == "last"


def test_copy_of_a_named_moment_is_taken_with_a_note(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    empty(site)
    site.back_up()
    site.send()
    moment = datetime.now().astimezone().isoformat()
    site.wipe()
    code, said = site.restore(capsys, moment)
    assert (code, names(site)) == (0, [])
    assert "note: suspicious: " in said


def test_copies_after_an_accepted_loss_come_back(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    empty(site)
    site.back_up(accept_loss=True)
    change(site.settings.database_path, "anew")
    site.send()
    change(site.settings.database_path, "newest")
    site.send()
    site.wipe()
    code, said = site.restore(capsys)
    assert (code, names(site)) == (0, ["anew", "newest"])
    assert "suspicious" not in said
