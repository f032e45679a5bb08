"""Who takes part, and when a site is asked again; no processes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from federation_bed import Answered, plan_of

from fedmpt.backbone import load_backbone
from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.rounds import TooFewUpdates
from fedmpt.runs.config import preset
from fedmpt.runs.federation import coordinator, membership
from fedmpt.runs.federation.coordinator import Coordinator
from fedmpt.runs.federation.membership import POLL, RETRY, SOON, Membership
from fedmpt.runs.federation.plan import Rules
from fedmpt.runs.federation.sites import Sites
from fedmpt.runs.federation.status import Status


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Doors:
    """A link whose sites say why they do not take part. ``asked`` are the times at which they were, ``told`` the
    reasons that they hear."""

    def __init__(self, clock: Clock, answers: dict[str, bytes | str]) -> None:
        self.clock, self.answers = clock, answers
        self.asked: dict[str, list[float]] = {site: [] for site in answers}
        self.told: dict[str, list[str]] = {site: [] for site in answers}

    def connected(self) -> dict[str, float]:
        return dict.fromkeys(self.answers, 1.0)

    def ask(self, contents: dict[str, bytes], *, timeout: float, limit: int) -> Any:
        for site, content in contents.items():
            answer, message = self.answers[site], unpack(content, source="test")
            if message.kind == "outside":
                self.told[site].append(message.words["reason"])
                yield Answered(site, pack(Message("told")))
                continue
            self.asked[site].append(self.clock.now)
            if isinstance(answer, bytes):
                yield Answered(site, answer)
                continue
            if answer.startswith("no answer"):
                self.clock.now += timeout
            yield Answered(site, None, answer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(membership, "time", clock)
    return clock


def gathering(doors: Doors, folder: Path, clip: Path) -> tuple[Membership, Status, list[str]]:
    plan = plan_of(preset("default", "promptfl", "sites"), rules=Rules(min_sites=2, gather=1, patience=100))
    status, said = Status.read(folder, plan.sites), list[str]()
    return Membership(Sites(plan, doors, folder, status, said.append), load_backbone(str(clip))), status, said


REFUSAL = pack(Message("error", {"error": "its options differ"}))


@pytest.mark.parametrize(
    ("answer", "pause"),
    [(REFUSAL, RETRY), ("its worker: it is not running, or still starting", SOON), ("no answer within 15 s", RETRY)],
    ids=["refuses", "starts", "is silent"],
)
def test_a_site_that_is_just_starting_is_asked_again_soon(
    clock: Clock, tmp_path: Path, tiny_clip_folder: Path, answer: bytes | str, pause: float
) -> None:
    doors = Doors(clock, {"ash": answer})
    members, _, _ = gathering(doors, tmp_path, tiny_clip_folder)
    with pytest.raises(membership.FederationStoppedError):
        members.gather()
    times = doors.asked["ash"]
    assert len(times) > 2
    assert all(pause <= after - before <= pause + POLL for before, after in pairwise(times))


def test_a_site_is_told_why_it_waits_outside_whenever_it_was_compared(
    clock: Clock, tmp_path: Path, tiny_clip_folder: Path
) -> None:
    """It may have been started anew within a round, which nobody sees."""
    doors = Doors(clock, {"ash": REFUSAL, "birch": "no answer within 15 s"})
    members, _, _ = gathering(doors, tmp_path, tiny_clip_folder)
    for _ in range(3):
        members._describe(members._arrivals(()))
        for _ in range(5):
            members._tell_reasons()
            members._waits("ash", "its options differ")
        clock.sleep(RETRY)
    assert doors.told == {"ash": 3 * ["its options differ"], "birch": []}, "nothing reaches birch"


def test_a_site_that_waited_outside_and_goes_is_away(clock: Clock, tmp_path: Path, tiny_clip_folder: Path) -> None:
    doors = Doors(clock, {"ash": REFUSAL})
    members, status, said = gathering(doors, tmp_path, tiny_clip_folder)
    members._describe(members._arrivals(()))
    assert said[-1] == "site ash waits outside: its options differ"
    doors.answers.clear()
    members._arrivals(())
    assert said[-1] == "site ash is away: not connected"
    assert (status.sites["ash"].state, status.sites["birch"].state) == ("away", "never")


def test_a_round_is_asked_again_after_ever_longer_pauses(
    clock: Clock, tmp_path: Path, tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "time", clock)
    doors = Doors(clock, {"ash": REFUSAL})
    members, _, said = gathering(doors, tmp_path, tiny_clip_folder)
    rounds = Coordinator(members.sites, members)

    def pause() -> float:
        before = clock.now
        with pytest.raises(TooFewUpdates):
            rounds._wait(1, "round 1: 0 of 1 updates counted")
        return clock.now - before

    members._since = clock.now
    assert [pause() for _ in range(4)] == [1, 2, 4, 8]
    assert said[-1] == "round 1: 0 of 1 updates counted, and 2 are needed; it is asked again in 8 s"
    back = clock.now + 3
    monkeypatch.setattr(doors, "connected", lambda: {"ash": 1.0} | ({"birch": back} if clock.now >= back else {}))
    assert [pause() for _ in range(2)] == [3, 1], "a site connects"
    members.round_done()
    assert [pause() for _ in range(5)] == [2, 4, 8, 16, 32]
    with pytest.raises(membership.FederationStoppedError, match=r"for 100 s \(--patience\): round 1: 0 of 1 updates"):
        pause()
    assert clock.now == members._since + 101
    members.round_done()
    assert pause() == coordinator.MAX_PAUSE
