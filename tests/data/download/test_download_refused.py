"""What is refused: wrong files, servers that say no, addresses that lead elsewhere."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest
from faulty_server import Behaviour, head, other, page, status, without_length
from fetching import ARCHIVE, CONTENT, HALF, PATH, Client, Serve

from fedmpt.data.download.archives import SOURCES
from fedmpt.data.download.fetch import fetch_archive
from fedmpt.data.download.report import Report
from fedmpt.data.download.request import check_mirror
from fedmpt.types import InputError


@pytest.mark.parametrize("code", [400, 401, 403, 418, 501])
def test_a_refusal_is_final(client: Client, serve: Serve, code: int) -> None:
    server = serve(status(code), status(code))
    client.assert_refused(server, f"the server answers {code} .*--mirror")
    assert len(server.asked) == 1


def test_a_missing_file_is_looked_for_by_its_bare_name(client: Client, serve: Serve) -> None:
    server = serve(path="/files.tar")
    client.assert_fetched(server)
    assert [asked.path for asked in server.asked] == [PATH, "/files.tar"]


def test_a_file_that_is_nowhere(client: Client, serve: Serve) -> None:
    client.assert_refused(serve(path="/else"), r"/files\.tar is not there \(404 .*--mirror")


@pytest.mark.parametrize("wrong", [other(CONTENT[:-1] + b"x"), without_length])
def test_a_wrong_checksum_is_refused(client: Client, serve: Serve, wrong: Behaviour) -> None:
    expected = "0" * 64
    archive = replace(ARCHIVE, sha256=expected)
    message = rf"files\.tar is not the official archive: its SHA-256 is [0-9a-f]{{64}}, not {expected}; .*--mirror"
    client.assert_refused(serve(wrong), message, archive)
    assert os.listdir(client.folder) == []


@pytest.mark.parametrize("behaviour", [other(CONTENT[:HALF]), other(CONTENT + b"x")])
def test_a_wrong_length_is_refused_before_it_is_fetched(client: Client, serve: Serve, behaviour: Behaviour) -> None:
    client.part.write_bytes(CONTENT[:10])
    client.assert_refused(serve(behaviour), r"has 100,000 bytes|has 200,001 bytes, the official archive 200,000")
    assert client.part.read_bytes() == CONTENT[:10]


def test_a_web_page_is_no_archive(client: Client, serve: Serve) -> None:
    client.part.write_bytes(CONTENT[:10])
    client.assert_refused(serve(page), "sends a web page, not the archive; open the address in a browser")
    assert client.part.read_bytes() == CONTENT[:10]


def test_a_packed_body_is_refused(client: Client, serve: Serve) -> None:
    client.assert_refused(serve(head(200, Content_Encoding="gzip")), "coding 'gzip'")


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"x"])
def test_a_file_in_the_archives_place_is_checked_and_not_touched(client: Client, serve: Serve, content: bytes) -> None:
    (client.folder / "files.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"files\.tar is not the official archive: .*; remove it"):
        client.fetch(serve())
    assert (client.folder / "files.tar").read_bytes() == content


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_with_the_range(client: Client, serve: Serve, code: int) -> None:
    server = serve()
    client.part.write_bytes(CONTENT[:HALF])
    client.assert_fetched(serve(status(code, Location=server.url + PATH)))
    assert server.asked[0].start == HALF


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://a b/\tc"])
def test_redirects_lead_only_to_the_web(client: Client, serve: Serve, target: str) -> None:
    server = serve(status(302, Location=target))
    client.assert_refused(server, "http://127.0.0.1:")
    assert len(server.asked) == 1


def test_redirects_in_a_circle_end(client: Client, serve: Serve) -> None:
    client.assert_refused(serve(*[status(302, Location=PATH)] * 30), r"302 '.*infinite loop")


def test_words_of_the_server_cannot_write_to_the_terminal(client: Client, serve: Serve) -> None:
    def rude(handler: object, _: bytes) -> None:
        handler.wfile.write(b"HTTP/1.0 403 \x1b[2Jowned\r\n\r\n")  # type: ignore[attr-defined]

    with pytest.raises(InputError, match="owned") as refused:
        client.fetch(serve(rude))
    assert "\x1b" not in str(refused.value)


def test_a_proxy_of_the_environment_is_used(client: Client, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(path=ARCHIVE.url)  # A proxy is asked for the whole address.
    monkeypatch.setenv("http_proxy", proxy.url)
    fetch_archive(ARCHIVE, client.folder, mirror=None, patience=client.patience, report=Report(client.console))
    assert [asked.path for asked in proxy.asked] == [ARCHIVE.url]


@pytest.mark.parametrize(
    "mirror",
    ["example.org", "file:///tmp", "ftp://example.org", "http://", "http://a:b/", "http://a b", "http://a\x1b", ""],
)
def test_a_mirror_is_an_address(mirror: str) -> None:
    with pytest.raises(InputError, match=r"--mirror '.*' is no address; give one such as https"):
        check_mirror(mirror)


@pytest.mark.parametrize("mirror", ["http://me:secret@example.org", "http://me@example.org/"])
def test_a_mirror_with_a_password_is_not_repeated(mirror: str) -> None:
    with pytest.raises(InputError, match="user name") as refused:
        check_mirror(mirror)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("mirror", ["http://a.org/?x=1", "http://a.org/#x"])
def test_a_mirror_is_a_folder(mirror: str) -> None:
    with pytest.raises(InputError, match="behind its path"):
        check_mirror(mirror)


@pytest.mark.parametrize(
    "mirror", ["http://a.org", "https://a.org:8080/b/", "http://127.0.0.1:80", "http://[::1]:80/x"]
)
def test_good_mirrors(mirror: str) -> None:
    check_mirror(mirror)


def test_the_official_archives_are_those_of_the_official_servers() -> None:
    archives = [archive for source in SOURCES.values() for archive in source.archives]
    for archive in archives:
        assert archive.url.startswith(("http://host.robots.ox.ac.uk/pascal/VOC/", "http://images.cocodataset.org/"))
        assert len(bytes.fromhex(archive.sha256)) == hashlib.sha256().digest_size
        assert archive.unpacked_bytes >= archive.size_bytes
    assert len({archive.sha256 for archive in archives}) == len({archive.file_name for archive in archives}) == 5
