"""Fetching from a server that fails, but not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from faulty_server import (
    Behaviour,
    chunked,
    cut,
    drip,
    etag,
    good,
    hang,
    head,
    marked,
    nonsense,
    status,
    without_length,
    without_ranges,
)
from fetching import CONTENT, HALF, Client, Serve

from fedmpt.data.download.fetch import Patience


@pytest.mark.parametrize("behaviour", [good, without_length, chunked, without_ranges, marked("")])
def test_a_good_server_is_asked_once(client: Client, serve: Serve, behaviour: Behaviour) -> None:
    server = serve(behaviour)
    client.assert_fetched(server)
    assert len(server.asked) == 1
    assert client.waits == []


def test_what_is_whole_is_not_fetched_again(client: Client, serve: Serve) -> None:
    server = serve()
    client.assert_fetched(server)
    client.assert_fetched(server)
    assert len(server.asked) == 1


def test_a_cut_connection_is_gone_on_with(client: Client, serve: Serve) -> None:
    server = serve(cut(HALF))
    client.assert_fetched(server)
    assert [asked.start for asked in server.asked] == [0, HALF]
    assert server.asked[1].headers["If-Range"] == etag(CONTENT)
    assert server.sent_bytes == len(CONTENT)
    assert client.waits == [1]


def test_waits_grow_and_start_again_with_every_progress(client: Client, serve: Serve) -> None:
    nothing = status(503)
    server = serve(nothing, nothing, nothing, cut(HALF), nothing, nothing)
    client.assert_fetched(server)
    assert client.waits == [1, 2, 4, 1, 1, 2]


def test_waits_do_not_grow_without_end() -> None:
    assert Patience().wait_s(10) == 60
    assert Patience().wait_s(5000) == 60


def test_a_server_that_brings_nothing_further_is_given_up(client: Client, serve: Serve) -> None:
    server = serve(*[cut(HALF)] + [status(500)] * 20)
    client.assert_refused(
        server, r"500 .*6 tries in a row .* 100\.0 kB of 200\.0 kB are kept .* the same command goes on"
    )
    assert client.waits == [1, 1, 2, 4, 8, 16]
    assert client.part.read_bytes() == CONTENT[:HALF]
    client.assert_refused(server, "6 tries in a row")
    server.script.clear()
    client.assert_fetched(server)
    assert server.asked[-1].start == HALF


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(client: Client, serve: Serve) -> None:
    def short(handler: object, content: bytes) -> None:
        head(200, Content_Length=len(content))(handler, content[:HALF])  # type: ignore[arg-type]

    server = serve(*[short] * 50)
    client.assert_refused(server, "6 tries in a row brought nothing further")
    assert len(server.asked) == 7


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_statuses_that_pass_are_waited_for(client: Client, serve: Serve, code: int) -> None:
    server = serve(status(code), status(code))
    client.assert_fetched(server)
    assert client.waits == [1, 2]


def test_the_server_says_how_long_to_wait(client: Client, serve: Serve) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    waits = ["7", soon, past, "soon", "-3"]
    client.assert_fetched(serve(*(status(429, Retry_After=wait) for wait in waits)))
    assert client.waits[0] == 7
    assert 90 < client.waits[1] <= 100
    assert client.waits[2:] == [4, 8, 16]


def test_a_long_wait_is_left_to_the_user(client: Client, serve: Serve) -> None:
    client.assert_refused(serve(status(429, Retry_After="3600")), "asks to wait 3600 s; come back later")
    assert client.waits == []


def test_a_silent_server_is_left_after_a_while(client: Client, serve: Serve) -> None:
    client.patience = replace(client.patience, timeout_s=0.1)
    server = serve(hang(HALF))
    client.assert_fetched(server)
    assert [asked.start for asked in server.asked] == [0, HALF]


def test_a_server_that_only_trickles_is_left(client: Client, serve: Serve) -> None:
    client.patience = replace(client.patience, stall_s=0.1)
    server = serve(drip(0.01))
    client.assert_fetched(server)
    assert 0 < server.asked[1].start < 60


def test_an_answer_that_is_no_http_is_tried_again(client: Client, serve: Serve) -> None:
    client.assert_fetched(serve(nonsense))
    assert client.waits == [1]


def test_no_server_at_all(client: Client, serve: Serve) -> None:
    server = serve()
    server.__exit__(None, None, None)
    client.assert_refused(server, "Connection refused; 6 tries in a row brought nothing further")
