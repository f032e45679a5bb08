"""An archive from its address to the disk: gone on with after every kind of stop, renamed only when it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from io import FileIO
from pathlib import Path

from fedmpt.data.download.archives import Archive
from fedmpt.data.download.part import Part
from fedmpt.data.download.report import Report, Show, amount
from fedmpt.data.download.request import Answer, NotThereError, PassingError, ask, reason
from fedmpt.types import InputError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Patience:
    """How long to wait, and for what.

    ``tries`` counts those in a row that brought nothing further. Waits between them double from ``first_wait_s`` to
    ``longest_wait_s``; a server that asks for more than ``longest_asked_wait_s`` is not waited for. A connection is
    given up after ``timeout_s`` of silence, or if it brings less than ``stall_bytes`` in ``stall_s``.
    """

    tries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_asked_wait_s: float = 300.0
    timeout_s: float = 30.0
    stall_s: float = 60.0
    stall_bytes: int = 60_000
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def wait_s(self, tries: int) -> float:
        """The wait after so many tries in a row that brought nothing."""
        doublings = min(max(tries - 1, 0), 60)  # Where floats still have room.
        return min(self.first_wait_s * 2.0**doublings, self.longest_wait_s)


@contextmanager
def room_asked_for(folder: Path) -> Iterator[None]:
    """Says in words that the disk of ``folder`` is full, if writing within fails for that."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"the disk of {folder} is full; make room, then the same command goes on") from error


def bytes_there(archive: Archive, folder: Path) -> int:
    """How much of an archive is in ``folder`` already."""
    target = folder / archive.file_name
    return target.stat().st_size if target.exists() else Part(target).num_bytes()


def fetch_archive(archive: Archive, folder: Path, *, mirror: str | None, patience: Patience, report: Report) -> Path:
    """The archive in ``folder``, whole and with the right checksum; one that is there already is only checked.

    Raises:
        InputError: if it cannot be fetched, is another file than the official one, or the disk is full. What has
            come stays, and the next call goes on from there.
    """
    target = folder / archive.file_name
    if target.exists():
        if fault := _fault(target, archive, report):
            raise InputError(f"{target} is not the official archive: {fault}; remove it, and it will be fetched")
        return target
    part = Part(target)
    is_resumed = part.num_bytes() > 0
    fault = _fetched_fault(part, archive, mirror, patience, report)
    if fault and is_resumed:
        # The start may be of another version of the file, or of a disk that lost power.
        report.say(f"{archive.file_name}: {fault}; fetching it anew")
        fault = _fetched_fault(part, archive, mirror, patience, report)
    if fault:
        raise InputError(
            f"{archive.file_name} is not the official archive: {fault}; take another address with --mirror"
        )
    part.finish()
    return target


def _fetched_fault(part: Part, archive: Archive, mirror: str | None, patience: Patience, report: Report) -> str:
    """Complete the part; what is wrong with it then, if anything, and then it is removed."""
    addresses = archive.addresses(mirror)
    while True:
        try:
            _complete(part, archive, addresses[0], patience, report)
            break
        except NotThereError:
            if len(addresses) == 1:
                raise
            del addresses[0]
    fault = _fault(part.path, archive, report)
    if fault:
        part.discard()
    return fault


def _fault(path: Path, archive: Archive, report: Report) -> str:
    """What is wrong with a file that should be the archive; empty if nothing is."""
    size = path.stat().st_size
    if size != archive.size_bytes:
        return f"it has {size:,} bytes and not {archive.size_bytes:,}"
    digest = hashlib.sha256()
    with path.open("rb") as file, report.bar(f"checking {archive.file_name}", total=size) as show:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            show(file.tell())
    return "" if digest.hexdigest() == archive.sha256 else f"its SHA-256 is {digest.hexdigest()}, not {archive.sha256}"


def _complete(part: Part, archive: Archive, url: str, patience: Patience, report: Report) -> None:
    """Connect and receive until the part has the archive's length."""
    tries, furthest, total = 0, part.num_bytes(), archive.size_bytes
    if furthest >= total:
        return
    there = f", {amount(furthest)} of it are there" if furthest else ""
    report.say(f"fetching {url} ({amount(total)}{there})")
    with report.bar(archive.file_name, total=total, done=furthest) as show:
        while part.num_bytes() < total:
            try:
                _go_on(part, archive, url, patience, show)
            except PassingError as trouble:
                if trouble.anew:
                    part.discard()
                # A server that always breaks off at the same byte brings nothing further, though it sends a lot.
                tries = 0 if part.num_bytes() > furthest else tries + 1
                furthest = max(furthest, part.num_bytes())
                _wait(trouble, tries, part, archive, patience, report)


def _wait(trouble: PassingError, tries: int, part: Part, archive: Archive, patience: Patience, report: Report) -> None:
    kept = (
        f"{amount(part.num_bytes())} of {amount(archive.size_bytes)} are kept in {part.path}, the same command goes on"
    )
    if trouble.wait_s > patience.longest_asked_wait_s:
        raise InputError(
            f"{archive.file_name}: {trouble}, and asks to wait {trouble.wait_s:.0f} s; come back later, {kept}"
        )
    if tries >= patience.tries:
        raise InputError(
            f"{archive.file_name}: {trouble}; {tries} tries in a row brought nothing further. {kept}, "
            "or take another address with --mirror"
        )
    wait_s = max(trouble.wait_s, patience.wait_s(tries))
    report.say(f"{archive.file_name}: {trouble}; trying again in {wait_s:g} s ({tries + 1} of {patience.tries})")
    patience.sleep(wait_s)


def _go_on(part: Part, archive: Archive, url: str, patience: Patience, show: Show) -> None:
    """One connection: the rest of the file, or as much of it as comes."""
    answer = ask(url, start=part.num_bytes(), version=part.version(), timeout_s=patience.timeout_s)
    with answer.body:
        _check(answer, archive, url)
        with room_asked_for(part.path.parent):
            if answer.start == 0:
                part.begin(answer.version)
            file = part.path.open("ab", buffering=0)
        with file:
            done = answer.start
            show(done)
            for block in _blocks(answer, archive.size_bytes, patience):
                with room_asked_for(part.path.parent):
                    _write(file, block)
                done += len(block)
                show(done)
            # On the disk before it gets its name, as all files are here.
            os.fsync(file.fileno())


def _check(answer: Answer, archive: Archive, url: str) -> None:
    if answer.content_type == "text/html":
        raise InputError(
            f"{url}: the server sends a web page, not the archive; open the address in a browser "
            "to see what it says, or take another with --mirror"
        )
    if answer.total_bytes not in (None, archive.size_bytes):
        raise InputError(
            f"{url} has {answer.total_bytes:,} bytes, the official archive {archive.size_bytes:,}; "
            "take another address with --mirror"
        )


def _blocks(answer: Answer, size_bytes: int, patience: Patience) -> Iterator[bytes]:
    """What comes, up to the archive's end. Raises PassingError if it ends early, breaks off or trickles."""
    done = since = answer.start
    moment = patience.clock()
    while done < size_bytes:
        try:
            block = answer.body.read1(min(_BLOCK_BYTES, size_bytes - done))
        except (OSError, HTTPException) as error:
            raise PassingError(f"the connection broke ({reason(error)})") from error
        if not block:
            raise PassingError(f"the connection ended after {amount(done)}")
        yield block
        done += len(block)
        if (elapsed_s := patience.clock() - moment) >= patience.stall_s:
            if done - since < patience.stall_bytes:
                raise PassingError(f"only {amount(done - since)} came in {elapsed_s:.0f} s")
            moment, since = patience.clock(), done


def _write(file: FileIO, block: bytes) -> None:
    """All of a block: a file without buffer takes only some of it when the disk is about to be full."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]
