"""The way to the sites, with real processes on loopback: what arrives, and what the death of each process costs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from flare_bed import CLIENT, JOB, SERVER_JOB, WORKER, Bed, later

pytestmark = pytest.mark.slow

A, B, C = SITES = ("site-a", "site-b", "site-c")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("link") / "f", sites=SITES) as bed:
        for site in (A, B):
            bed.join(site)
        yield bed


@pytest.fixture
def bed(running: Bed) -> Bed:
    """With all that have joined so far."""
    running.all_there()
    return running


def same(content: bytes) -> dict[str, bytes]:
    return dict.fromkeys(SITES, content)


def test_bytes_arrive_and_a_late_site_gets_into_the_next_ask(bed: Bed) -> None:
    contents = {site: os.urandom(200_000) for site in SITES}
    answers = bed.ask(contents)
    assert {site: answer.content for site, answer in answers.items()} == {**contents, C: None}
    assert answers[C].error == "not connected"
    bed.join(C)
    bed.all_there()
    shared = os.urandom(300_000)
    assert {answer.content for answer in bed.ask(same(shared)).values()} == {shared}
    job = bed.processes(A, JOB)[-1]
    assert not any("torch" in entry.path for entry in job.memory_maps())
    assert job.memory_info().rss < 150e6
    before = [(line.bytes_up, line.bytes_down) for line in bed.lines.values()]
    rounds = [os.urandom(200_000) for _ in range(10)]
    for content in rounds:
        assert {answer.content for answer in bed.ask(same(content)).values()} == {content}
    for line, (up, down) in zip(bed.lines.values(), before, strict=True):
        assert 2e6 < line.bytes_up - up < 1.2 * 2e6
        assert 2e6 < line.bytes_down - down < 1.2 * 2e6


def test_a_site_that_fails_is_slow_or_sends_too_much_costs_its_own_answer(bed: Bed) -> None:
    answers = bed.ask({A: b"fail", B: b"big 500000000", C: b"big 2000000"})
    assert [answer.content for answer in answers.values()] == [None, None, None]
    assert answers[A].error == "its worker: RuntimeError: this worker fails"
    assert "500000001 bytes" in answers[B].error
    assert answers[C].error == "its answer has 2000000 bytes, and 1000000 are allowed"
    start = time.monotonic()
    answers = bed.ask({A: b"sleep 5", B: b"x", C: b"y"}, timeout=3)
    assert time.monotonic() - start < 5
    assert answers[A].error == "no answer within 3 s"
    assert (answers[B].content, answers[C].content) == (b"x", b"y")
    answers = bed.ask(same(b"next"))  # The late answer is no answer to this.
    assert {answer.content for answer in answers.values()} == {b"next"}


def test_a_killed_worker_and_a_killed_client(bed: Bed) -> None:
    later(1.5, (bed.kill, A, WORKER), (bed.kill, B, CLIENT))
    start = time.monotonic()
    answers = bed.ask(same(b"sleep 3"))
    assert answers[A].error == "its worker: it stopped in the middle of the work"
    assert answers[B].error == "no sign of life for 20 s"
    assert answers[C].content == b"sleep 3"
    assert time.monotonic() - start < 30
    bed.all_there()
    assert {answer.content for answer in bed.ask(same(b"again")).values()} == {b"again"}
    assert "its worker has stopped (signal 9); it is started again in 1 s" in bed.said(A)
    assert "NVFlare's client has stopped (signal 9); it is started again in 1 s" in bed.said(B)


def test_a_killed_job_process_costs_one_answer_and_the_others_work_once(bed: Bed) -> None:
    calls = int(bed.ask({C: b"count"})[C].content or b"")
    later(1.5, (lambda: bed.processes(A, JOB)[-1].kill(),))
    answers = bed.ask(same(b"sleep 4"))
    assert answers[A].error == "its job process stopped"
    assert (answers[B].content, answers[C].content) == (b"sleep 4", b"sleep 4")
    assert int(bed.ask({C: b"count"})[C].content or b"") == calls + 2  # The sleep, and this.


def test_a_killed_server_costs_no_answer(bed: Bed) -> None:
    later(1.5, (bed.kill_ours, "server_train"))
    answers = bed.ask(same(b"sleep 3"), timeout=90)
    assert {answer.content for answer in answers.values()} == {b"sleep 3"}
    assert "NVFlare's server has stopped; it is started again" in bed.notes
    later(1.0, (bed.kill_ours, SERVER_JOB))
    answers = bed.ask(same(b"sleep 2"), timeout=60)
    assert {answer.content for answer in answers.values()} == {b"sleep 2"}


def test_a_slow_line_and_one_that_is_cut_for_a_moment(bed: Bed) -> None:
    content = os.urandom(200_000)
    bed.ask(same(b"x"))
    line = bed.lines[C]
    line.rate, line.delay = 64_000, 0.3
    later(2, (line.cut, True))
    later(6, (line.cut, False))
    try:
        answers = bed.ask(same(content), timeout=60)
    finally:
        line.rate, line.delay = None, 0.0
        line.cut(False)
    assert {answer.content for answer in answers.values()} == {content}


def test_supervisors_end_with_all_their_processes(bed: Bed) -> None:
    bed.ask(same(b"x"))
    families = [psutil.Process(bed.joined[site].pid).children(recursive=True) for site in SITES]
    assert all(len(family) >= 3 for family in families)
    bed.joined[A].send_signal(signal.SIGINT)
    bed.joined[B].terminate()
    bed.joined[C].kill()
    assert [bed.joined[site].wait(20) for site in SITES] == [130, 0, -9]
    _gone, alive = psutil.wait_procs([process for family in families for process in family], timeout=20)
    assert alive == []
    assert bed.join(A, "wrong-input").wait(20) == 2
    bed.joined.clear()
