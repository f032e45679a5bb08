"""Benchmark sets from their official addresses, into folders that the readers of `fedmpt.data` read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fedmpt.data.download.archives import Archive, Source, find_source
from fedmpt.data.download.fetch import Patience, bytes_there, fetch_archive
from fedmpt.data.download.report import Report, amount
from fedmpt.data.download.request import check_mirror
from fedmpt.data.download.unpack import missing_files, remove_leftovers, unpack_archive
from fedmpt.files import exclusive
from fedmpt.types import InputError


def download(
    name: str,
    out: Path,
    *,
    report: Report,
    parts: Sequence[str] = (),
    mirror: str | None = None,
    keep_archives: bool = False,
    patience: Patience | None = None,
) -> None:
    """Fetch a data set, check it, and unpack it into ``out``; what is there already is left alone.

    ``parts`` are all unless given. ``mirror`` is another address for the official files, whose checksums still hold.
    A call that was stopped, however, is gone on with by the same call.

    Raises:
        InputError: if a name is unknown, the server refuses or fails for long, an archive is not the official one,
            the disk has too little room, a file is in the way, or another process writes to ``out``.
    """
    source = find_source(name)
    chosen = source.select(parts)
    if mirror is not None:
        check_mirror(mirror)
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out):
        remove_leftovers(out)
        todo = [archive for archive in chosen if not _is_there(archive, out, report)]
        if todo:
            report.say(source.licence)
            _check_room(todo, out, keep_archives=keep_archives)
        for archive in todo:
            path = fetch_archive(archive, out, mirror=mirror, patience=patience or Patience(), report=report)
            num_files = unpack_archive(path, archive, out, report)
            report.say(f"{archive.part}: {num_files:,} files unpacked")
            if not keep_archives:
                path.unlink()
        if not keep_archives:
            _name_needless(chosen, out, report)
        report.say(_summary(source, out))


def _is_there(archive: Archive, out: Path, report: Report) -> bool:
    missing = missing_files(out, archive)
    if missing is None:
        return False
    if missing:
        report.say(f"{archive.part}: {len(missing)} files are missing or changed, first {missing[0]}; restoring them")
    else:
        report.say(f"{archive.part}: complete in {out}, left as it is")
    return not missing


def _check_room(todo: Sequence[Archive], out: Path, *, keep_archives: bool) -> None:
    """Asked first: hours of fetching should not end with a full disk."""
    needed = added = 0
    for archive in todo:
        there = bytes_there(archive, out)
        needed = max(needed, added + archive.size_bytes - there + archive.unpacked_bytes)
        added += archive.unpacked_bytes + (archive.size_bytes if keep_archives else 0) - there
    free = shutil.disk_usage(out).free
    if free < needed:
        raise InputError(
            f"the disk of {out} has {amount(free)} free, and {amount(needed)} are needed for archives and files; "
            "make room, choose another --out, or fetch fewer --parts"
        )


def _name_needless(chosen: Sequence[Archive], out: Path, report: Report) -> None:
    """Archives kept by an earlier call, or left by one that was killed after unpacking, may be large."""
    for archive in chosen:
        if (out / archive.file_name).exists():
            report.say(f"{out / archive.file_name} is unpacked and can be removed")


def _summary(source: Source, out: Path) -> str:
    lacking = [archive.part for archive in source.archives if missing_files(out, archive) != []]
    if lacking:
        return f"{out} has no {' and no '.join(lacking)} yet; --data {source.reader}:{out} needs all parts"
    return f"{out} is complete; use it with --data {source.reader}:{out}"
