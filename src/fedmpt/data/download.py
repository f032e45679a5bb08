"""Benchmark sets from their official addresses, into folders that the readers of `fedmpt.data` read."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rich.filesize import decimal

from fedmpt import __version__
from fedmpt.data.archives import SOURCES, Archive
from fedmpt.data.progress import Advance, progress_bar
from fedmpt.data.reading import closest
from fedmpt.files import exclusive, read_json, write_json
from fedmpt.types import InputError

TRIES, TIMEOUT_S = 6, 30.0
"""How many tries in a row may bring nothing further. Waits between them double from a second to a minute."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be gone with the next request."""

Say = Callable[[str], None]


def download(
    name: str, out: Path, *, say: Say, parts: Sequence[str] = (), mirror: str | None = None, keep_archives: bool = False
) -> None:
    """Fetch a data set, check it, and unpack it into ``out``; what is there already is left alone.

    ``parts`` are all unless given. ``mirror`` is another address for the official files, whose checksums still hold.
    A call that was stopped, however, is gone on with by the same call.

    Raises:
        InputError: if a part is unknown, the server refuses or fails for long, an archive is not the official one,
            the disk has too little room, a file is in the way, or another process writes to ``out``.
    """
    source = SOURCES[name]
    known = [archive.part for archive in source.archives]
    for part in parts:
        if part not in known:
            raise InputError(f"unknown part {part!r}{closest(part, known)}; parts are: {', '.join(known)}")
    if mirror is not None and not (urlsplit(mirror).scheme in ("http", "https") and urlsplit(mirror).hostname):
        raise InputError(f"--mirror {mirror!r} is no address; give one such as https://example.org/files")
    chosen = [archive for archive in source.archives if not parts or archive.part in parts]
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        for leftover in out.glob(".fedmpt-unpacking-*"):  # Of a process that was killed while unpacking.
            shutil.rmtree(leftover)
        todo = [archive for archive in chosen if _missing_files(out, archive) != []]
        for archive in chosen:
            if archive not in todo:
                say(f"{archive.part}: complete in {out}, left as it is")
            elif missing := _missing_files(out, archive):
                say(f"{archive.part}: {len(missing)} files are missing or changed, first {missing[0]}; restoring them")
        if todo:
            say(source.licence)
            _check_room(todo, out, keep_archives=keep_archives)
        try:
            for archive in todo:
                path = _fetch(archive, out, mirror, say)
                say(f"{archive.part}: {_unpack(path, archive, source.root, out):,} files unpacked")
                if not keep_archives:
                    path.unlink()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(f"the disk of {out} is full; make room, then the same command goes on") from error
        lacking = " and no ".join(archive.part for archive in source.archives if _missing_files(out, archive) != [])
    use = f"--data {source.reader}:{out}"
    say(f"{out} has no {lacking} yet; {use} needs all parts" if lacking else f"{out} is complete; use it with {use}")


def _check_room(todo: Sequence[Archive], out: Path, *, keep_archives: bool) -> None:
    """Asked first: hours of fetching should not end with a full disk."""
    needed = added = 0
    for archive in todo:
        there = max(_size(out / archive.file_name), _size(out / f"{archive.file_name}.part"))
        unpacked = round(archive.unpacked_ratio * archive.size_bytes)
        needed = max(needed, added + archive.size_bytes - there + unpacked)
        added += unpacked + (archive.size_bytes if keep_archives else 0) - there
    free = shutil.disk_usage(out).free
    if free < needed:
        raise InputError(
            f"the disk of {out} has {decimal(free)} free, and {decimal(needed)} are needed for archives and files; "
            "make room, choose another --out, or fetch fewer --parts"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(archive: Archive, out: Path, mirror: str | None, say: Say) -> Path:
    """The archive in ``out``, with the right checksum. What has come of it stays, whatever stops this."""
    import pooch  # type: ignore[import-untyped]  # Imported here: it brings an HTTP library, and help needs none.

    pooch.get_logger().setLevel("WARNING")
    target, part = out / archive.file_name, out / f"{archive.file_name}.part"
    is_resumed = target.exists() or part.exists()
    fault = f"{target.name} is not the official archive: its SHA-256 is not {archive.sha256}"

    def fetch_anew(_: str, output: str, __: object) -> None:
        target.unlink()
        if not is_resumed:
            raise ValueError
        # The start may be of another version of the file, or of a disk that lost power.
        say(f"{fault}; fetching it anew")
        _complete(archive, mirror, part, say)
        part.replace(output)

    # Not left to pooch, which begins a download that broke anew: COCO is 13 GB in one file.
    if not target.exists():
        _complete(archive, mirror, part, say)
        part.replace(target)
    say(f"checking {target.name}")
    try:
        pooch.retrieve(archive.url, archive.sha256, target.name, out, downloader=fetch_anew)
    except InputError:  # What went wrong while it was fetched anew.
        raise
    except ValueError as error:
        raise InputError(f"{fault}; take another address with --mirror") from error
    return target


def _complete(archive: Archive, mirror: str | None, part: Path, say: Say) -> None:
    """Connect and receive until ``part`` has the archive's length."""
    base = (mirror or "").rstrip("/")  # A mirror has the file under its official path or its bare name.
    addresses = [base + urlsplit(archive.url).path, f"{base}/{archive.file_name}"] if mirror else [archive.url]
    tries, furthest, total = 0, _size(part), archive.size_bytes
    say(f"fetching {addresses[0]} ({decimal(total)}{f', {decimal(furthest)} are there' if furthest else ''})")
    with progress_bar(archive.file_name, total, num_done=furthest, in_bytes=True) as advance:
        while _size(part) < total:
            try:
                _receive(addresses[0], part, archive, advance)
                trouble = "the connection ended early"
            except HTTPError as error:
                trouble = f"the server answers {error.code} {error.msg!r}"
                if error.code in (404, 410) and len(addresses) > 1:
                    del addresses[0]
                    continue
                if error.code not in PASSING:
                    raise InputError(f"{addresses[0]}: {trouble}; take another address with --mirror") from error
            except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
                trouble = f"the connection broke ({getattr(error, 'reason', None) or error or type(error).__name__})"
            if (have := _size(part)) >= total:
                break
            # A server that always breaks off at the same byte brings nothing further, though it sends a lot.
            tries = 0 if have > furthest else tries + 1
            furthest = max(furthest, have)
            if tries == TRIES:
                raise InputError(
                    f"{archive.file_name}: {trouble}; {tries} tries in a row brought nothing further. "
                    f"{decimal(have)} of {decimal(total)} are kept in {part}; the same command goes on"
                )
            wait_s = min(2 ** max(tries - 1, 0), 60)
            say(f"{archive.file_name}: {trouble}; trying again in {wait_s} s ({tries + 1} of {TRIES})")
            time.sleep(wait_s)


def _receive(url: str, part: Path, archive: Archive, advance: Advance) -> None:
    """One connection: the rest of the file, or as much of it as comes; the whole from a server without ranges."""
    start = _size(part)
    headers = {"User-Agent": f"fedmpt/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
        kept = start if answer.status == 206 else 0
        num_bytes = kept + int(answer.headers.get("Content-Length") or archive.size_bytes - kept)
        if answer.headers.get_content_type() == "text/html":
            raise InputError(f"{url}: the server sends a web page, not the archive; open the address in a browser")
        if num_bytes != archive.size_bytes:
            raise InputError(
                f"{url} has {num_bytes:,} bytes, the official archive {archive.size_bytes:,}; try --mirror"
            )
        advance(kept - start)
        with part.open("ab" if kept else "wb") as file:
            while block := _next_block(answer, min(1 << 20, archive.size_bytes - file.tell())):
                file.write(block)
                file.flush()
                advance(len(block))


def _next_block(answer: Any, most: int) -> bytes:
    try:
        return bytes(answer.read1(most))
    except OSError as error:  # Of the network, whatever it is: told from what the disk refuses.
        raise URLError(error) from error


def _unpack(path: Path, archive: Archive, root: str, out: Path) -> int:
    """Unpack ``path``, whose checksum is right, into ``out``, record which files that gave, and return their number.

    They are written to a folder within ``out`` first, and then moved; until they are recorded, `_missing_files` takes
    nothing of them for there. Lists and annotations are moved after the images: readers look for them first.
    """
    staging, record = out / f".fedmpt-unpacking-{archive.part}", _record(out, archive)
    try:
        _extract(path, staging)
        made = staging / root
        files = {file.relative_to(made).as_posix(): _size(file) for file in made.rglob("*") if file.is_file()}
        for name, size in files.items():
            if not record.exists() and (out / name).exists() and _size(out / name) != size:
                raise InputError(f"{out / name} is in the way: it is not the archive's; remove it or change --out")
        for name in sorted(files, key=lambda name: (not name.endswith(".jpg"), name)):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).replace(out / name)
        record.parent.mkdir(exist_ok=True)
        write_json(record, {"sha256": archive.sha256, "files": files})
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(files)


def _extract(path: Path, staging: Path) -> None:
    members: list[tuple[int, Callable[[], Any]]]
    with contextlib.ExitStack() as stack:
        if path.suffix == ".zip":
            zipped = stack.enter_context(zipfile.ZipFile(path))
            members = [(info.file_size, partial(zipped.extract, info, staging)) for info in zipped.infolist()]
        else:
            tar = stack.enter_context(tarfile.open(path))
            members = [(info.size, partial(tar.extract, info, staging, filter="data")) for info in tar.getmembers()]
        total = sum(size for size, _ in members)
        with progress_bar(f"unpacking {path.name}", total, in_bytes=True) as advance:
            for size, extract in members:
                extract()
                advance(size)


def _record(out: Path, archive: Archive) -> Path:
    """What was unpacked before: the length in bytes of each file by its path."""
    return out / ".fedmpt-downloaded" / f"{archive.file_name}.json"


def _missing_files(out: Path, archive: Archive) -> list[str] | None:
    """Files of an unpacked archive that are missing in ``out`` or have another length; None if it is not unpacked."""
    if not _record(out, archive).exists():
        return None
    recorded = read_json(_record(out, archive))["files"]
    return sorted(name for name, size in recorded.items() if _size(out / name) != size)
