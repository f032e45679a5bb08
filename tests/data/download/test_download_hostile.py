"""Nothing of a hostile or damaged archive reaches the folder."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_archives import member, tar_of, zip_of
from unpacking import FILES, REPORT, assert_refused, content_of, write

from fedmpt.data.download import unpack as unpack_module
from fedmpt.data.download.unpack import unpack_archive
from fedmpt.types import InputError

HOSTILE_NAMES = [
    "/etc/x", "../x", "set/../../x", "set/..", "..", ".", "", "set//x", "set/./x", "C:/x", "C:x", "\\x", "set\\..\\x",
    "set/x\n", "set/\x1b[2J", "set/x:stream", "//server/x", "set/\udcff",
]  # fmt: skip
NUM_DAMAGED = 60


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_lead_elsewhere_are_refused(out: Path, name: str) -> None:
    assert_refused(out, tar_of(FILES | {name: b"bad"}), "is no place below the folder")


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if name not in ("", "set/\udcff")])
def test_names_that_lead_elsewhere_are_refused_in_zips(out: Path, name: str) -> None:
    assert_refused(out, zip_of(FILES | {name: b"bad"}), "is no place below the folder", name="files.zip")


@pytest.mark.parametrize("name", ["other/x", "set", "setx/y", "/set/x"])
def test_names_beside_the_root_are_refused(out: Path, name: str) -> None:
    assert_refused(out, tar_of(FILES | {name: b"bad"}), "is no place below 'set'|there twice", root="set")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "images/1.jpg"])
@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"]
)
def test_links_and_devices_are_refused(out: Path, kind: bytes, target: str) -> None:
    assert_refused(out, tar_of(FILES, member("set/x", kind, target)), "'set/x' is a link or device")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_links_and_devices_are_refused_in_zips(out: Path, mode: int) -> None:
    info = zipfile.ZipInfo("set/link")
    info.external_attr = mode << 16
    assert_refused(out, zip_of({**FILES, info: b"/etc/passwd"}), "'set/link' is a link or device", name="files.zip")


def test_a_link_cannot_be_written_through(out: Path) -> None:
    hostile = tar_of({}, member("set", tarfile.SYMTYPE, str(out.parent)))
    assert_refused(out, hostile[:512] + tar_of({"set/x": b"bad"}), "is a link or device")


@pytest.mark.parametrize(
    "files", [[("a", b"1"), ("a", b"2")], [("a", b"1"), ("a/b", b"2")], [("a/b", b"1"), ("a", b"2")]]
)
def test_two_files_in_one_place_are_refused(out: Path, files: list[tuple[str, bytes]]) -> None:
    first, second = (tar_of(dict([file])) for file in files)
    assert_refused(out, first[:1024] + second, "is there twice")


def test_more_bytes_than_announced_are_refused(out: Path) -> None:
    content = tar_of(FILES | {"set/big": b"x" * 5000})
    assert_refused(out, content, r"would unpack to 5 files of 5\.0 kB, more than the 4\.0 kB", unpacked_bytes=4000)


def test_a_zip_bomb_is_refused(out: Path) -> None:
    content = zip_of({f"{number}.jpg": bytes(1_000_000) for number in range(20)}, compressed=True)
    assert len(content) < 30_000
    assert_refused(
        out, content, r"20 files of 20\.0 MB, more than the 30\.0 kB", name="files.zip", unpacked_bytes=30_000
    )


def test_more_files_than_any_archive_has_are_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_module, "_MAX_FILES", 3)
    assert_refused(out, tar_of(FILES), "would unpack to 4 files")


def test_a_zip_that_lies_about_a_length_is_refused(out: Path) -> None:
    content = bytearray(zip_of({"a.jpg": bytes(1_000_000)}, compressed=True))
    for start in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content[start : start + 4] = (10).to_bytes(4, "little")
    assert_refused(out, bytes(content), "is damaged", name="files.zip", unpacked_bytes=10**9)


def damaged_zips() -> Mapping[str, bytes]:
    good = zip_of({**FILES}, compressed=True)
    flipped, encrypted, method = bytearray(zip_of({**FILES})), bytearray(good), bytearray(good)
    flipped[flipped.index(b"<a/>")] ^= 1
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    encrypted[6] |= 1
    method[method.index(b"PK\x01\x02") + 10] = 99
    bad_name = bytearray(good)
    bad_name[bad_name.index(b"PK\x01\x02") + 46] = 0xFF
    bad_name[bad_name.index(b"PK\x01\x02") + 9] |= 8  # The name is said to be UTF-8.
    return {
        "cut": good[:-30],
        "empty": b"",
        "no zip": b"<html>",
        "a byte flipped": bytes(flipped),
        "encrypted": bytes(encrypted),
        "unknown method": bytes(method),
        "names that are no text": bytes(bad_name),
        "middle missing": good[:60] + good[90:],
    }


@pytest.mark.parametrize("content", damaged_zips().values(), ids=damaged_zips().keys())
def test_damaged_zips_are_refused(out: Path, content: bytes) -> None:
    assert_refused(out, content, "is damaged", name="files.zip", unpacked_bytes=10**9)


def test_damaged_tars_are_refused(out: Path) -> None:
    whole = tar_of({"a": b"1" * 600, "b": b"2"})
    assert_refused(out, whole[:700], "is damaged")
    assert_refused(out, whole[:100], "is damaged")
    assert_refused(out, b"", "is damaged")
    assert_refused(out, b"x" * 2000, "is damaged")
    assert_refused(out, zip_of({**FILES}), "is damaged")  # Of the wrong kind.


@pytest.mark.parametrize("kind", ["tar", "zip", "packed zip"])
def test_any_damage_is_refused_or_gives_files_within_bounds(out: Path, kind: str) -> None:
    """Bytes are changed by chance; sums are not looked at here, so some changes pass."""
    good = tar_of(FILES) if kind == "tar" else zip_of({**FILES}, compressed=kind == "packed zip")
    used = len(good.rstrip(bytes(1)))  # A tar ends in thousands of zeros.
    draw, num_refused = random.Random(kind), 0
    for _ in range(NUM_DAMAGED):
        content = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(used)] = draw.choice((0, 1, 47, 46, 92, 128, 255))
        path, archive = write(out, bytes(content), name=f"files.{kind[-3:]}", unpacked_bytes=10_000)
        try:
            unpack_archive(path, archive, out, REPORT)
        except InputError:
            num_refused += 1
        assert sum(map(len, content_of(out).values())) <= 10_000 + len(good)
        assert sorted(os.listdir(out.parent)) == ["out"]
        shutil.rmtree(out)
        out.mkdir()
    assert NUM_DAMAGED // 5 < num_refused < NUM_DAMAGED


def test_a_packed_tar_is_none_of_ours(out: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    assert_refused(out, buffer.getvalue(), "is damaged")
