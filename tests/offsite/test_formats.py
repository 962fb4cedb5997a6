"""The formats: what goes in comes out, what is damaged is found, and other programs open it."""

import hashlib
import io
import random
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestdb.config import PROJECT_DIR
from backtestdb.errors import VerificationError
from backtestdb.files import hash_file
from backtestdb.offsite.delta import (
    apply_page_patches,
    apply_pages,
    find_changed_runs,
    hash_blocks,
    make_page_patches,
    make_patch,
    read_page_delta,
)
from backtestdb.offsite.errors import DamagedObjectError, OffsiteError
from backtestdb.offsite.objects import (
    Remote,
    cut,
    cut_stream,
    open_stream,
    read_segment,
    send_segment,
    send_segments,
)
from backtestdb.offsite.record import CLASSES, CopyName, load_record, parse_name
from backtestdb.offsite.seal import lock_key, unlock_key
from backtestdb.offsite.send import Content
from backtestdb.offsite.send_full import send_full_content
from backtestdb.offsite.store import FolderStore
from backtestdb.offsite.target import open_remote
from backup_tools import change, make_platform_database
from offsite_tools import KEY, make_machine, make_site

pieces = st.lists(st.binary(max_size=3000), max_size=12)


@given(pieces, st.integers(1, 5000), st.integers(0, 20_000))
def test_a_stream_that_is_cut_anywhere_is_the_same_stream(
    chunks: list[bytes], size: int, skip: int
) -> None:
    found = list(cut_stream(chunks, size, skip))
    assert b"".join(found) == b"".join(chunks)[skip:]
    assert all(len(piece) == size for piece in found[:-1])


@pytest.mark.parametrize("seed", range(12))
def test_pages_that_changed_turn_the_base_into_the_new_file(seed: int, tmp_path: Path) -> None:
    """Grown, shrunk, changed at both ends, or not at all."""
    chance = random.Random(seed)
    old = chance.randbytes(4096 * chance.randrange(1, 40))
    new = bytearray(old[: chance.randrange(1, len(old) + 1)] if seed % 3 == 0 else old)
    for _ in range(chance.randrange(6) if seed else 0):
        new[chance.randrange(len(new))] ^= 1
    if seed % 3 == 1:
        new += chance.randbytes(chance.randrange(30_000))
    base, target = tmp_path / "base", tmp_path / "new"
    base.write_bytes(old)
    target.write_bytes(new)

    runs = find_changed_runs(hash_blocks(target), hash_blocks(base))
    patched = tmp_path / "patched"
    shutil.copyfile(base, patched)
    part_bytes = 4096 * chance.randrange(1, 5)
    parts = list(make_page_patches(target, runs, base, hash_blocks(base), part_bytes, 0))
    apply_page_patches((part.piece for part in parts), patched)
    assert patched.read_bytes() == bytes(new)

    sent = chance.randrange(len(parts) + 1)
    skip = sum(part.source_bytes for part in parts[:sent])
    rest = make_page_patches(target, runs, base, hash_blocks(base), part_bytes, skip)
    assert list(rest) == parts[sent:]

    delta = b"".join(read_page_delta(target, runs))
    apply_pages(io.BufferedReader(io.BytesIO(delta)), base)  # type: ignore[arg-type]
    assert base.read_bytes() == bytes(new)
    changed = sum(old[at : at + 4096] != new[at : at + 4096] for at in range(0, len(new), 4096))
    assert sum(count for _first, count in runs) == changed


def test_a_base_that_rusts_is_not_patched_against(tmp_path: Path) -> None:
    old, base, target = random.Random(1).randbytes(9 * 4096), tmp_path / "base", tmp_path / "new"
    base.write_bytes(old)
    target.write_bytes(bytes([old[0] ^ 1]) + old[1:])
    digests = hash_blocks(base)
    runs = find_changed_runs(hash_blocks(target), digests)
    base.write_bytes(bytes([old[0] ^ 2]) + old[1:])
    with pytest.raises(VerificationError, match="block 0 of the kept base has changed"):
        list(make_page_patches(target, runs, base, digests, 4096, 0))


@pytest.mark.parametrize(("changed", "expected"), [(40, "full-delta"), (4096, "full-base")])
def test_pages_that_all_changed_are_patched_unless_little_of_them_is_left(
    changed: int, expected: str, tmp_path: Path
) -> None:
    machine, chance = make_machine(tmp_path), random.Random(changed)
    old = chance.randbytes(50 * 4096)
    fresh = b"".join(
        chance.randbytes(changed) + old[at + changed : at + 4096] for at in range(0, len(old), 4096)
    )
    classes = []
    for number, data in enumerate((old, fresh)):
        path = tmp_path / f"full-{number}.db"
        path.write_bytes(data)
        record = send_full_content(machine.sender, describe_file(path))
        classes.append(record.name.copy_class)
        assert machine.fetch(record).read_bytes() == data
    assert classes == ["full-base", expected]


def describe_file(path: Path) -> Content:
    return Content(
        path=path,
        file=path.name,
        database="",
        database_id="",
        taken_at_utc=datetime.now(UTC),
        sha256=hash_file(path),
        rows={},
    )


def test_page_patches_that_end_early_are_damage(tmp_path: Path) -> None:
    base, target = tmp_path / "base", tmp_path / "new"
    base.write_bytes(bytes(9000))
    target.write_bytes(bytes(5000) + b"x" * 4000)
    runs = find_changed_runs(hash_blocks(target), hash_blocks(base))
    parts = list(make_page_patches(target, runs, base, hash_blocks(base), 4096, 0))
    assert len(parts) == 3
    with pytest.raises(DamagedObjectError):
        apply_page_patches((part.piece for part in parts[:-1]), base)


def test_a_page_delta_that_ends_early_is_damage(tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.write_bytes(bytes(9000))
    delta = b"".join(read_page_delta(target, [(0, 3)]))
    with pytest.raises(DamagedObjectError):
        apply_pages(io.BufferedReader(io.BytesIO(delta[:-1])), target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "changed"), [(0, 0), (1, 1), (200_000, 1), (200_000, 400), (3_000_000, 50)]
)
def test_segments_give_back_what_was_sent(size: int, changed: int, tmp_path: Path) -> None:
    chance = random.Random(size)
    base = chance.randbytes(size)
    new = bytearray(base)
    for _ in range(changed):
        new[chance.randrange(len(new))] ^= 255
    remote = Remote(FolderStore(tmp_path), KEY)
    patch = make_patch(base, bytes(new)) if base else b""
    segments = send_segments(remote, "minute/segments", cut(patch, 1000))
    if base:
        with open_stream(remote, segments, base=base) as stream:
            assert stream.read() == bytes(new)
        assert changed > 100 or len(patch) < 100 * changed + 200


def test_a_segment_is_opened_by_its_name_and_its_key_only(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    remote = Remote(store, KEY)
    segment = send_segment(remote, "minute/segments", b"hello")
    sealed = (tmp_path / segment.name).read_bytes()
    assert segment.name == f"minute/segments/{hashlib.sha256(sealed).hexdigest()}.zst.age"
    assert b"hello" not in sealed
    assert read_segment(remote, segment) == b"hello"

    (tmp_path / segment.name).write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(DamagedObjectError):
        read_segment(remote, segment)


def test_a_store_that_returns_other_bytes_is_found_at_the_upload(tmp_path: Path) -> None:
    class LyingStore(FolderStore):
        def get(self, name: str) -> bytes:
            return super().get(name)[:-1] + b"?"

    with pytest.raises(OffsiteError, match="other bytes"):
        send_segment(Remote(LyingStore(tmp_path), KEY), "minute/segments", b"hello")


def test_the_key_opens_with_its_passphrase_only() -> None:
    locked = lock_key(KEY, "correct horse battery")
    assert unlock_key(locked, "correct horse battery", "here") == KEY
    with pytest.raises(OffsiteError, match="OFFSITE_PASSPHRASE does not open"):
        unlock_key(locked, "correct horse batterz", "here")
    assert KEY.text not in repr(KEY)


def test_key_of_a_much_faster_machine_is_not_called_a_wrong_passphrase() -> None:
    """The work stands in the head of the file, and age refuses it before it tries the passphrase;
    on a busy machine it refuses keys of its own, too."""
    locked = lock_key(KEY, "correct horse battery")
    head = locked.split(b"\n")[1]
    faster = locked.replace(head, head.rsplit(b" ", 1)[0] + b" 40")
    with pytest.raises(OffsiteError, match="much faster") as caught:
        unlock_key(faster, "correct horse battery", "here", attempts=2)
    assert "OFFSITE_PASSPHRASE" not in str(caught.value)


@given(st.sampled_from(CLASSES), st.datetimes(), st.integers(0, 2**32 - 1), st.integers(0, 10**9))
def test_a_name_says_what_it_was_made_of(copy_class, moment, writer, number) -> None:  # type: ignore[no-untyped-def]
    from datetime import UTC

    name = CopyName(copy_class, moment.replace(tzinfo=UTC), f"{writer:08x}", number)
    assert parse_name(str(name)) == name if moment.year >= 1000 else True


@pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("zstd")), reason="age and zstd are not installed"
)
def test_plain_age_and_zstd_open_a_small_copy_and_its_delta(tmp_path: Path) -> None:
    """The commands of the guide, without a line of this project."""
    machine = make_machine(tmp_path)
    make_platform_database(machine.database)
    base = machine.send()
    change(machine.database, "later")
    minute = machine.send()
    assert minute.encoding == "patch"
    (tmp_path / "key.txt").write_text(KEY.text)

    def open_plain(record, name: str, *options: str) -> bytes:  # type: ignore[no-untyped-def]
        parts = " ".join(f"remote/{segment.name}" for segment in record.segments)
        command = (
            f"for s in {parts}; do age -d -i key.txt $s; done | zstd -d {' '.join(options)} "
            f"> {name}"
        )
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        return (tmp_path / name).read_bytes()

    assert hashlib.sha256(open_plain(base, "base.db")).hexdigest() == base.sha256
    found = open_plain(minute, "minute.db", "--patch-from=base.db", "--long=31")
    assert hashlib.sha256(found).hexdigest() == minute.sha256


@pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("zstd")), reason="age and zstd are not installed"
)
@pytest.mark.parametrize("keeps_base", [True, pytest.param(False, marks=pytest.mark.long)])
def test_plain_age_and_zstd_open_a_full_copy_and_its_delta(
    keeps_base: bool, tmp_path: Path
) -> None:
    """With the program that the guide prints, word for word."""
    site = make_site(tmp_path)
    make_platform_database(site.settings.database_path, bars=20_000)
    site.init()
    site.back_up()
    site.send()
    if not keeps_base:
        (kept,) = site.settings.backup_dir.glob(".offsite/*/full/full-base.db")
        kept.unlink()
    change(site.settings.database_path, "later")
    site.back_up()
    site.send()
    remote = open_remote(site.settings)
    names = {name.copy_class: name for name in site.copies()}
    base, delta = (load_record(remote, names[kind]) for kind in ("full-base", "full-delta"))
    assert delta.encoding == ("page-patches" if keeps_base else "pages")

    (tmp_path / "key.txt").write_text(KEY.text)
    guide = (PROJECT_DIR / "docs" / "DATABASE.md").read_text().partition("### Without this")[2]
    (tmp_path / "apply_pages.py").write_text(re.findall(r"```python\n(.*?)```", guide, re.S)[0])
    script = "\n".join(
        [
            "set -euo pipefail; cd elsewhere; cp ../key.txt .; export PATH",
            *("WHOLE='" + " ".join(one.name for one in base.segments) + "'",),
            *("PAGES='" + " ".join(one.name for one in delta.segments) + "'",),
            re.findall(r"^open_segments\(\).*$", guide, re.M)[0],
            "open_segments $WHOLE | zstd -qd > ../full.db; cp ../apply_pages.py .",
            *(
                line.replace("full.db", "../full.db")
                for line in re.findall(r"^.*\$(?:PAGES|PATCHES).*$", guide, re.M)
                if ("$PATCHES" in line) == keeps_base
            ),
        ]
    ).replace("$PATCHES", "$PAGES")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert hashlib.sha256((tmp_path / "full.db").read_bytes()).hexdigest() == delta.sha256
