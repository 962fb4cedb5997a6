"""Damage where the copies lie: bits, missing, swapped, older, truncated. It is found, and never
restored as good."""

import random
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backtestdb.errors import VerificationError
from backtestdb.files import hash_file
from backtestdb.offsite.check import check_copies
from backtestdb.offsite.errors import MissingObjectError
from backtestdb.offsite.fetch import fetch_copy, list_copies
from backtestdb.offsite.history import find_sent
from backtestdb.offsite.liveness import target_folder
from backtestdb.offsite.objects import Remote
from backtestdb.offsite.record import CopyName
from backtestdb.offsite.store import FolderStore
from backup_tools import change, make_platform_database
from offsite_tools import KEY, Site, make_site

WAYS = ("bit", "missing", "swapped", "older", "truncated", "empty", "longer")


@dataclass
class Sent:
    """What lies elsewhere, and the SHA-256 of the file that each copy must give."""

    site: Site
    elsewhere: Path
    expected: dict[CopyName, str]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Two full copies, and small ones of every class."""
    site = make_site(tmp_path_factory.mktemp("sent"))
    database = site.settings.database_path
    make_platform_database(database, journal="WAL")
    site.settings.backup_dir.mkdir()
    site.init()
    for number in range(3):
        site.back_up("full" if number != 1 else "irreplaceable")
        site.send()
        for minute in range(2):
            change(database, f"change {number} {minute}")
            site.send()
    elsewhere = Path(site.settings.offsite)
    remote = Remote(FolderStore(elsewhere), KEY)
    scratch = elsewhere.parent / "scratch.db"
    names = list_copies(remote)
    expected = {name: fetch_copy(remote, name, scratch).sha256 for name in names}
    assert {name.copy_class for name in names} == {
        *("full-base", "full-delta", "small-base", "small-delta", "minute")
    }
    return Sent(site, elsewhere, expected)


def damage(elsewhere: Path, way: str, chance: random.Random) -> str:
    """Damage one object; return its name."""
    objects = sorted(path for path in elsewhere.rglob("*.age") if path.name != "key.age")
    path = chance.choice(objects)
    data = path.read_bytes()
    at = chance.randrange(len(data))
    if way == "bit":
        path.write_bytes(
            data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        )
    elif way == "missing":
        path.unlink()
    elif way == "swapped":
        other = chance.choice([one for one in objects if one != path])
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif way == "older":
        path.write_bytes(
            min(
                (one for one in objects if one != path), key=lambda one: one.stat().st_mtime
            ).read_bytes()
        )
    elif way == "truncated":
        path.write_bytes(data[:at])
    elif way == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(data + b"x")
    return path.name


def verify_damage_is_found(sent: Sent, folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    way = WAYS[seed % len(WAYS)]
    elsewhere = folder / "elsewhere"
    shutil.copytree(sent.elsewhere, elsewhere)
    damaged = damage(elsewhere, way, chance)
    remote = Remote(FolderStore(elsewhere), KEY)

    settings = sent.site.settings
    known = find_sent(target_folder(settings.backup_dir, settings.offsite), datetime.now(UTC))
    result = check_copies(remote, datetime.now(UTC), everything=True, sent=known)
    assert result.problems, f"seed {seed}: {way} of {damaged} was not found"

    target, came_back = folder / "back.db", 0
    for name in list_copies(remote):
        try:
            fetch_copy(remote, name, target)
        except (VerificationError, MissingObjectError):
            assert not target.exists()
        else:
            assert hash_file(target) == sent.expected[name], (
                f"seed {seed}: {way} of {damaged} passed as good"
            )
            came_back += 1
    # One object never takes everything: full and small copies have bases of their own. Two swapped
    # ones may.
    assert came_back >= 1 or way == "swapped", f"seed {seed}: {way} of {damaged} took every copy"
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(14))
def test_damage_is_found_and_never_restored_as_good(seed: int, sent: Sent, tmp_path: Path) -> None:
    verify_damage_is_found(sent, tmp_path / "one", seed)


@pytest.mark.long
def test_three_hundred_damages_are_found(sent: Sent, tmp_path: Path) -> None:
    for seed in range(1000, 1300):
        verify_damage_is_found(sent, tmp_path / str(seed), seed)
