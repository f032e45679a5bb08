"""Going on with what has come: after any stop, and only with the same file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from faulty_server import Behaviour, cut, etag, hang, head, marked, status, without_ranges
from fetching import ARCHIVE, CONTENT, HALF, Client, Serve

from fedmpt.data.download import fetch as fetch_module


def test_a_server_that_ignores_the_range_starts_anew(client: Client, serve: Serve) -> None:
    server = serve(cut(HALF), without_ranges)
    client.assert_fetched(server)
    assert server.asked[1].start == HALF
    assert server.sent_bytes == HALF + len(CONTENT)


def test_a_server_that_knows_no_such_range_starts_anew(client: Client, serve: Serve) -> None:
    server = serve(cut(HALF), status(416))
    client.assert_fetched(server)
    assert [asked.start for asked in server.asked] == [0, HALF, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        head(206, Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"),
        head(206, Content_Range="bytes half"),
        head(206),
        head(206, Content_Range=f"bytes {HALF}-{len(CONTENT) - 1}/{len(CONTENT)}", ETag='"another"'),
    ],
)
def test_another_range_than_asked_for_is_not_appended(client: Client, serve: Serve, wrong: Behaviour) -> None:
    server = serve(cut(HALF), wrong)
    client.assert_fetched(server)
    assert [asked.start for asked in server.asked] == [0, HALF, 0]


def test_a_range_without_length_is_taken(client: Client, serve: Serve) -> None:
    def rest(handler: object, content: bytes) -> None:
        head(206, Content_Range=f"bytes {HALF}-{len(CONTENT) - 1}/*")(handler, content[HALF:])  # type: ignore[arg-type]

    client.assert_fetched(serve(cut(HALF), rest))


def test_a_file_that_changed_between_two_tries_is_fetched_anew(client: Client, serve: Serve) -> None:
    server = serve(*[cut(HALF, mark='"old"')], *[status(500)] * 6)
    client.assert_refused(server, "6 tries")
    client.assert_fetched(server)
    assert server.asked[-1].headers["If-Range"] == '"old"'
    assert server.sent_bytes == HALF + len(CONTENT)


def test_a_weak_mark_is_no_condition(client: Client, serve: Serve) -> None:
    server = serve(cut(HALF, mark='W/"weak"'), marked('W/"weak"'))
    client.assert_fetched(server)
    assert "If-Range" not in server.asked[1].headers
    assert server.asked[1].start == HALF


def test_another_server_goes_on_with_the_part(client: Client, serve: Serve) -> None:
    first, second = serve(*[cut(HALF)], *[status(500)] * 6), serve(marked('"marks of its own"'))
    client.assert_refused(first, "6 tries")
    client.assert_fetched(second)
    assert second.asked[0].start == HALF
    assert "If-Range" not in second.asked[0].headers


@pytest.mark.parametrize("note", [None, b"", b"[1]", b'{"url": 3, "x": 4}', b"{"])
def test_a_part_without_a_good_note_is_gone_on_with(client: Client, serve: Serve, note: bytes | None) -> None:
    client.part.write_bytes(CONTENT[:HALF])
    if note is not None:
        client.part.with_name("files.tar.part.json").write_bytes(note)
    server = serve()
    client.assert_fetched(server)
    assert server.sent_bytes == len(CONTENT) - HALF


@pytest.mark.parametrize("start", [b"x" * HALF, b"x" * len(CONTENT)])
def test_a_damaged_part_is_noticed_and_fetched_anew(client: Client, serve: Serve, start: bytes) -> None:
    client.part.write_bytes(start)
    server = serve()
    client.assert_fetched(server)
    assert server.asked[-1].start == 0


def test_a_part_longer_than_the_archive_is_dropped(client: Client, serve: Serve) -> None:
    client.part.write_bytes(CONTENT + b"x")
    server = serve()
    client.assert_fetched(server)
    assert server.asked[0].start == 0


def test_a_complete_part_only_gets_its_name(client: Client, serve: Serve) -> None:
    client.part.write_bytes(CONTENT)
    server = serve()
    client.assert_fetched(server)
    assert server.asked == []


def test_a_full_disk_keeps_what_has_come(client: Client, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    write, room = fetch_module._write, [60_000]

    def until_full(file: object, block: bytes) -> None:
        write(file, block[: room[0]])  # type: ignore[arg-type]
        room[0] -= len(block)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    server = serve()
    with monkeypatch.context() as patched:
        patched.setattr(fetch_module, "_write", until_full)
        client.assert_refused(server, r"the disk of .*out is full; make room, then the same command goes on")
    assert client.part.read_bytes() == CONTENT[:60_000]
    client.assert_fetched(server)
    assert server.asked[-1].start == 60_000


FETCH = """
import sys
from pathlib import Path
from rich.console import Console
from fedmpt.data.download.archives import Archive
from fedmpt.data.download.fetch import Patience, fetch_archive
from fedmpt.data.download.report import Report

part, url, size, sha256, mirror, out = sys.argv[1:]
archive = Archive(part=part, url=url, size_bytes=int(size), sha256=sha256, unpacked_bytes=0)
fetch_archive(archive, Path(out), mirror=mirror, patience=Patience(), report=Report(Console(stderr=True)))
"""


def test_a_killed_process_leaves_a_part_and_only_the_rest_is_fetched(client: Client, serve: Serve) -> None:
    server = serve(hang(HALF))
    words = [ARCHIVE.part, ARCHIVE.url, str(ARCHIVE.size_bytes), ARCHIVE.sha256, server.url, str(client.folder)]
    with subprocess.Popen([sys.executable, "-c", FETCH, *words], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (client.part.exists() and client.part.stat().st_size == HALF):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert sorted(os.listdir(client.folder)) == ["files.tar.part", "files.tar.part.json"]
    client.assert_fetched(server)
    assert server.sent_bytes == len(CONTENT)
    assert server.asked[-1].headers["If-Range"] == etag(CONTENT)
