"""Small archives, written, unpacked and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_archives import archive_of

from fedmpt.data.download.archives import Archive
from fedmpt.data.download.report import Report
from fedmpt.data.download.unpack import missing_files, unpack_archive
from fedmpt.types import InputError

FILES = {"set/ids/train.txt": b"1\n2\n", "set/images/1.jpg": b"one", "set/images/2.jpg": b"", "set/a.xml": b"<a/>"}
REPORT = Report(Console(quiet=True))


def write(out: Path, content: bytes, **options: Any) -> tuple[Path, Archive]:
    archive = archive_of(content, **options)
    path = out / archive.file_name
    path.write_bytes(content)
    return path, archive


def unpack(out: Path, content: bytes, **options: Any) -> Archive:
    path, archive = write(out, content, **options)
    unpack_archive(path, archive, out, REPORT)
    path.unlink()
    return archive


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".fedmpt-downloaded" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def assert_refused(out: Path, content: bytes, message: str, **options: Any) -> None:
    """The archive is refused, and neither ``out`` nor the folder around it shows a trace of it."""
    path, archive = write(out, content, **options)
    with pytest.raises(InputError, match=message):
        unpack_archive(path, archive, out, REPORT)
    assert sorted(out.parent.parent.rglob("*")) == [out.parent, out, path]
    assert missing_files(out, archive) is None
