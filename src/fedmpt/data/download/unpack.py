"""Archives into folders: nothing outside, nothing but plain files, no more than was announced, all of it or nothing."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from fedmpt.data.download.archives import Archive
from fedmpt.data.download.fetch import room_asked_for
from fedmpt.data.download.report import Report, amount
from fedmpt.files import read_json, write_json
from fedmpt.types import InputError

_BLOCK_BYTES = 1 << 20
_STAGING = ".fedmpt-unpacking-"
_MAX_FILES = 200_000
"""More than any of the archives has. Files cost room beside their bytes."""

# What the readers of the standard library raise over damaged archives, beside OSError for places before the start.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)

Files = Mapping[str, int]
"""Length in bytes of each file, by its path below the folder, with forward slashes."""


@dataclass(frozen=True)
class _Member:
    name: str
    num_bytes: int
    open: Callable[[], IO[bytes] | None]


def unpack_archive(path: Path, archive: Archive, out: Path, report: Report) -> int:
    """Unpack ``path``, which has been checked, into ``out``, record which files that gave, and return their number.

    They are written to a folder within ``out`` first, and then moved; until they are recorded, `missing_files` takes
    nothing of them for there. Lists and annotations are moved after the images: readers look for them first.

    Raises:
        InputError: if the archive is damaged or hostile, the disk is full, or a file in ``out`` is in the way.
    """
    staging = out / f"{_STAGING}{archive.part}"
    try:
        with room_asked_for(out):
            staging.mkdir()
            files = _extract(path, archive, staging, report)
            _move(staging, out, files, replaceable=_recorded(out, archive))
            _record_path(out, archive).parent.mkdir(exist_ok=True)
            write_json(_record_path(out, archive), {"sha256": archive.sha256, "files": files})
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(files)


def remove_leftovers(out: Path) -> None:
    """What a process that was killed while unpacking has left in ``out``."""
    for folder in out.glob(f"{_STAGING}*"):
        shutil.rmtree(folder)


def missing_files(out: Path, archive: Archive) -> list[str] | None:
    """Files of an unpacked archive that are missing in ``out`` or have another length; None if it is not unpacked."""
    recorded = _recorded(out, archive)
    if not recorded:
        return None
    there: dict[str, int] = {}
    # Each folder is listed once: asking for each file is slow on network disks.
    for folder in {name.rpartition("/")[0] for name in recorded}:
        if (out / folder).is_dir():
            with os.scandir(out / folder) as entries:
                there |= {
                    f"{folder}/{entry.name}".lstrip("/"): entry.stat().st_size for entry in entries if entry.is_file()
                }
    return sorted(name for name, num_bytes in recorded.items() if there.get(name) != num_bytes)


def _record_path(out: Path, archive: Archive) -> Path:
    return out / ".fedmpt-downloaded" / f"{archive.file_name}.json"


def _recorded(out: Path, archive: Archive) -> Files:
    """What an earlier call unpacked; nothing if the record is missing, damaged or of another version."""
    path = _record_path(out, archive)
    if not path.exists():
        return {}
    try:
        record = read_json(path)
        if record["sha256"] == archive.sha256:
            return {str(name): int(num_bytes) for name, num_bytes in record["files"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        pass
    return {}


def _extract(path: Path, archive: Archive, staging: Path, report: Report) -> Files:
    try:
        with _members(path) as members:
            return _write_members(path, archive, members, staging, report)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged: {error}; remove it, and it will be fetched") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InputError(f"{path} is damaged: {error.strerror}; remove it, and it will be fetched") from error


def _write_members(
    path: Path, archive: Archive, members: Sequence[_Member], staging: Path, report: Report
) -> dict[str, int]:
    """Write all members, after a look at what all of them announce."""
    targets = [_inner_path(path, member.name, archive.root) for member in members]
    total = sum(member.num_bytes for member in members)
    if total > archive.unpacked_bytes or len(members) > _MAX_FILES:
        raise InputError(
            f"{path} would unpack to {len(members):,} files of {amount(total)}, more than the "
            f"{amount(archive.unpacked_bytes)} of the official archive; remove it"
        )
    done = 0
    with report.bar(f"unpacking {path.name}", total=total) as show:
        for target, member in zip(targets, members, strict=True):
            _write_member(path, staging / target, member)
            done += member.num_bytes
            show(done)
    return {str(target): member.num_bytes for target, member in zip(targets, members, strict=True)}


@contextmanager
def _members(path: Path) -> Iterator[Sequence[_Member]]:
    """The plain files of a tar or zip; folders come of their own with the files in them."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as zipped:
            yield [_zip_member(path, zipped, info) for info in zipped.infolist() if not info.is_dir()]
    else:
        with tarfile.open(path, "r:") as tar:
            yield [_tar_member(path, tar, info) for info in tar.getmembers() if not info.isdir()]


def _zip_member(path: Path, zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):  # 0: written on a system without such kinds.
        raise InputError(f"{path}: {info.filename!r} is a link or device; the official archive holds only files")
    return _Member(info.filename, info.file_size, lambda: zipped.open(info))


def _tar_member(path: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    # Stricter than the filter "data" of `extractall`, which lets links within the folder pass.
    if not info.isreg():
        raise InputError(f"{path}: {info.name!r} is a link or device; the official archive holds only files")
    return _Member(info.name, info.size, lambda: tar.extractfile(info))


def _inner_path(path: Path, name: str, root: str) -> PurePosixPath:
    """Where a member belongs below the folder. Refused is what any system could take for a place outside."""
    parts = name.removeprefix("./").split("/")
    is_plain = name.isprintable() and not set(name) & set("\\:") and not {"", ".", ".."} & set(parts)
    if not is_plain or (root and (parts[0] != root or len(parts) == 1)):
        where = f"below {root!r}" if root else "below the folder"
        raise InputError(f"{path}: {name!r} is no place {where}; this is not the official archive, remove it")
    return PurePosixPath(*parts[1:] if root else parts)


def _write_member(path: Path, target: Path, member: _Member) -> None:
    content, num_bytes = member.open(), 0
    assert content is not None  # Only for folders, links and devices.
    with content:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise InputError(
                f"{path}: {member.name!r} is there twice; this is not the official archive, remove it"
            ) from None
        with file:
            # One byte more than announced is asked for, and with it the check of a zip's CRC.
            while block := content.read(min(_BLOCK_BYTES, member.num_bytes - num_bytes + 1)):
                num_bytes += len(block)
                if num_bytes > member.num_bytes:
                    break
                file.write(block)
    if num_bytes != member.num_bytes:
        raise InputError(f"{path} is damaged: {member.name!r} has not the length it announces; remove it")


def _move(staging: Path, out: Path, files: Files, *, replaceable: Files) -> None:
    """Whole folders where ``out`` has none of that name, else file by file: both parts of VOC share one folder."""
    for name, num_bytes in files.items():
        target = out / name
        if name not in replaceable and os.path.lexists(target) and not _is_file_of(target, num_bytes):
            raise InputError(f"{target} is in the way: it is another one than the archive's; remove it or change --out")
    for top in sorted({PurePosixPath(name).parts[0] for name in files}):
        if not os.path.lexists(out / top):
            (staging / top).rename(out / top)
    for name in sorted(files, key=lambda name: (not name.endswith(".jpg"), name)):
        if (staging / name).exists():
            _move_file(staging / name, out / name)


def _is_file_of(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _move_file(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{error.filename2 or error.filename} is in the way; remove it or change --out") from error
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise InputError(f"{target.parent} is on another disk; give --out a folder without links in it") from error
