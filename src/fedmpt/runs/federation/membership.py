"""Which sites take part: each is compared with the coordinator before it trains, and again when it comes back."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.data.features.store import fingerprint
from fedmpt.federated.flare.messages import Message
from fedmpt.methods import Method
from fedmpt.runs.federation.agreement import (
    agreed_options,
    check_known,
    check_same,
    class_names_of,
    joined_classes,
    odd_spellings,
    own_versions,
)
from fedmpt.runs.federation.exchange import MAX_IMAGES, counts_of, part_of, tensors_of_counts, with_prefix
from fedmpt.runs.federation.sites import WORDS_LIMIT, Sites
from fedmpt.types import Backbone, InputError

POLL = 1.0
"""Seconds between two looks at who is there."""
ANSWER, ENTER = 15.0, 120.0
"""Seconds within which a site says what it has, as its model and features are loaded by then; and builds the method."""
SETTLE = 3.0
"""Seconds without a newcomer after which those that are there are compared, before all are there. To compare some
takes a job of NVFlare's, and the next one would have to wait for it."""
RETRY = 30.0
"""Seconds after which a site that waits outside is compared again: its engineer may have mended what was wrong."""
SOON = 5.0
"""The same for one that cannot be asked, which shows before the time to answer is over: it is being started."""


class FederationStoppedError(InputError):
    """Too few sites for too long. The same command goes on with the last complete round."""


@dataclass
class Membership:
    """The sites that take part, by name, with what they said when they entered.

    ``counts`` are the sites' counts of labels, summed when the run begins; None before, and where none are needed. They
    stay as they are whoever comes and goes, so that the training does not change with them.
    """

    sites: Sites
    backbone: Backbone
    members: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    counts: LabelCounts | None = None
    rounds_done: int = 0
    class_names: tuple[str, ...] | None = None
    method: Method | None = None
    _described: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _odd: dict[str, str] = field(default_factory=dict)
    """Sites that write a class otherwise than most, with what is wrong."""
    _not_before: dict[str, float] = field(default_factory=dict)
    _counted: dict[str, LabelCounts] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _reasons: dict[str, str] = field(default_factory=dict)
    """Why sites wait outside that are to be told."""
    _told_reasons: dict[str, str] = field(default_factory=dict)
    """What these sites were told since they were compared the last time."""
    _since: float = field(default_factory=time.monotonic)
    _seen: tuple[list[str], float] = ([], 0.0)

    def gather(self) -> tuple[str, ...]:
        """Wait for sites as the rules say. The class list: the plan's, or all that the sites name, sorted.

        Raises:
            FederationStoppedError: if too few come.
        """
        plan, rules = self.sites.plan, self.sites.plan.rules
        began = time.monotonic()
        patience = f"; after {rules.gather:.0f} s with {rules.min_sites}" if rules.min_sites < len(plan.sites) else ""
        self.sites.note(f"waiting at {plan.address} for {len(plan.sites)} sites{patience}")
        while True:
            if self._has_settled():
                self._describe(self._arrivals(self._described.keys() - self._odd.keys()))
            waited = time.monotonic() - began
            is_time = len(self._described) == len(plan.sites) or waited >= rules.gather
            self._compare_spellings(is_time=is_time and self.class_names is None)
            self._tell_reasons()
            num = len(self._described) - len(self._odd)
            if num == len(plan.sites) or (waited >= rules.gather and num >= rules.min_sites):
                break
            self.check_patience(f"{num} of {len(plan.sites)} sites are there")
            time.sleep(POLL)
        agreeing = {site: names for site, names in self._described.items() if site not in self._odd}
        if late := [site for site in plan.sites if site not in agreeing]:
            self.sites.note(f"begins without {', '.join(late)}; a site that comes later takes part from then on")
        return self.class_names or joined_classes(agreeing)

    def _compare_spellings(self, *, is_time: bool) -> None:
        """Who is here, and once it ``is_time`` to begin, who waits outside for the spelling of a class."""
        self._odd = odd_spellings(self._described) if is_time else {}
        for site in sorted(self._described.keys() - self._odd.keys()):
            self.sites.changed(site, "here")
        for site, why in self._odd.items():
            self._waits(site, why)

    def _has_settled(self) -> bool:
        """Whether all sites are connected, or nobody has come or gone for a moment."""
        connected, now = self.sites.connected(), time.monotonic()
        if connected != self._seen[0]:
            self._seen = (connected, now)
        is_all = len(connected) == len(self.sites.plan.sites)
        return is_all or now - self._seen[1] >= min(SETTLE, self.sites.plan.rules.gather)

    def begin(self, method: Method, class_names: tuple[str, ...]) -> None:
        """Let the sites in that were gathered; from now on, newcomers are let in between rounds."""
        self.method, self.class_names = method, class_names
        self._not_before.clear()
        self.present()
        if self.counts is None and self._counted:
            self.counts = reduce(add, (self._counted[site] for site in sorted(self._counted)))
            self.present()  # It sends them. A site that does not take them leaves.

    def present(self) -> list[int]:
        """Numbers of the sites that take part now, once they are enough.

        Raises:
            FederationStoppedError: if they are too few for too long.
        """
        rules, plan = self.sites.plan.rules, self.sites.plan
        while True:
            new = self._arrivals(self.members)
            self._enter(self._describe(new))
            self._tell_reasons()
            if len(self.members) >= rules.min_sites:
                return [plan.sites.index(site) for site in sorted(self.members)]
            state = f"{len(self.members)} of {len(plan.sites)} sites take part, and a round needs {rules.min_sites}"
            self.sites.standing("waiting", note=state)
            self.check_patience(state)
            time.sleep(POLL)

    def forget(self, site: str) -> None:
        """A site that did not answer is compared and let in again before the next round."""
        self.members.pop(site, None)
        self._not_before.pop(site, None)

    def round_done(self) -> None:
        """Patience begins anew."""
        self._since = time.monotonic()

    def check_patience(self, what: str) -> None:
        """Raises FederationStoppedError if no round was complete for longer than the rules allow."""
        patience = self.sites.plan.rules.patience
        if time.monotonic() - self._since > patience:
            raise FederationStoppedError(
                f"no round was complete for {patience:.0f} s (--patience): {what}; the same command goes on later"
            )

    def _arrivals(self, inside: Collection[str]) -> list[str]:
        """Connected sites that are to be compared now. Those that have gone leave."""
        connected, now = self.sites.connected(), time.monotonic()
        for site, status in self.sites.status.sites.items():
            if site not in connected and status.state in ("here", "outside"):
                self.members.pop(site, None)
                self._not_before.pop(site, None)
                self.sites.changed(site, "away", "not connected")
        for site in [site for site in self._described if site not in connected]:
            self._described.pop(site)
        new = [site for site in connected if site not in inside and now >= self._not_before.get(site, now)]
        self._not_before |= dict.fromkeys(new, now + RETRY)
        return sorted(new)

    def _waits(self, site: str, why: str, *, is_lost: bool = False) -> None:
        """A site waits outside. It is to be told why, unless nothing reaches it."""
        self.sites.changed(site, "outside", why)
        if not is_lost:
            self._reasons[site] = why

    def _tell_reasons(self) -> None:
        """Tell the sites that wait outside why they do: once after each comparison, as ``join`` may be a new one."""
        new = {site: why for site, why in self._reasons.items() if self._told_reasons.get(site) != why}
        self._reasons.clear()
        messages = {site: Message("outside", {"reason": why}) for site, why in new.items()}
        list(self.sites.asked(messages, timeout=ANSWER, limit=WORDS_LIMIT))
        self._told_reasons |= new

    def _describe(self, new: Collection[str]) -> list[str]:
        """Those of the ``new`` sites that may take part; the others wait outside, and are told why."""
        message = Message("describe", {"options": agreed_options(self.sites.plan.run)})
        answers = self.sites.asked(dict.fromkeys(new, message), timeout=ANSWER, limit=WORDS_LIMIT)
        fitting, began = [], time.monotonic()
        for site, answer, error, is_lost in answers:
            self._told_reasons.pop(site, None)
            if is_lost and time.monotonic() < began + ANSWER:
                self._not_before[site] = time.monotonic() + SOON
            try:
                if answer is None:
                    raise InputError(error)
                self._described[site] = self._checked(site, answer.words)
                fitting.append(site)
            except InputError as wrong:
                if self.method is None:
                    self._described.pop(site, None)
                self._waits(site, str(wrong), is_lost=is_lost)
        return sorted(fitting)

    def _checked(self, site: str, words: Mapping[str, Any]) -> tuple[str, ...]:
        """The class names of a site that fits. Raises InputError that says where it does not."""
        here = {"backbone": fingerprint(self.backbone), "versions": own_versions()}
        check_same(here, {name: words.get(name) for name in here}, site=site)
        names = class_names_of(words.get("class_names"), source="its labels")
        if self.method is not None and site in self._odd and names == self._described.get(site):
            raise InputError(self._odd[site])  # Nothing has changed since.
        if self.class_names is not None:
            check_known(names, self.class_names, where="its labels")
        status = self.sites.status.sites[site]
        status.images, status.test_images = (whole(words, name) for name in ("images", "test_images"))
        return names

    def _enter(self, fitting: Collection[str]) -> None:
        assert self.class_names is not None
        assert self.method is not None
        words = {"class_names": list(self.class_names), "rounds_done": self.rounds_done, "counts": self._needs_counts}
        message = Message("enter", words)
        limit = WORDS_LIMIT + (8 * (len(self.class_names) + 1) ** 2 if self._needs_counts else 0)
        for site, answer, error, is_lost in self.sites.asked(
            dict.fromkeys(fitting, message), timeout=ENTER, limit=limit
        ):
            try:
                if answer is None:
                    raise InputError(error)
                self._entered(site, answer)
                self.sites.changed(site, "here")
            except InputError as wrong:
                self._waits(site, str(wrong), is_lost=is_lost)
        self._send_counts()

    @property
    def _needs_counts(self) -> bool:
        """Whether the sites' counts of labels are still to be summed."""
        return self.counts is None and self.sites.plan.run.needs_counts

    def _entered(self, site: str, answer: Message) -> None:
        assert self.class_names is not None
        assert self.method is not None
        words = answer.words
        check_same(dict(self.method.sources), words.get("sources"), site=site)
        if self._needs_counts:
            if not (counts := part_of(answer.tensors, "counts/")):
                raise InputError(
                    "it keeps its counts of labels to itself (send_counts in its policy.json), so it takes part only "
                    "once those of the others are summed; if they are too few, begin a federation with --no-balance "
                    "and --soft-ties 0"
                )
            found = counts_of(counts, len(self.class_names), source="its labels")
            if found.num_images > (images := whole(words, "images")):
                raise InputError(f"it counts labels of {found.num_images} images, and trains on {images}")
            self._counted[site] = found
        status, digest = self.sites.status.sites[site], str(words.get("digest"))[:64]
        if status.digest not in ("", digest):
            self.sites.say(f"site {site} has other images or labels than before", site=site)
        status.digest, status.images = digest, whole(words, "images")
        self._told.discard(site)
        self.members[site] = {**words, "held_out_images": whole(words, "held_out_images")}

    def _send_counts(self) -> None:
        """Tell the sites what all their counts add up to, where they have not been told."""
        if self.counts is None:
            return
        lacking = sorted(self.members.keys() - self._told)
        message = Message("counts", {}, with_prefix("counts/", tensors_of_counts(self.counts)))
        for site, answer, error, is_lost in self.sites.asked(
            dict.fromkeys(lacking, message), timeout=ENTER, limit=WORDS_LIMIT
        ):
            if answer is None:
                self.members.pop(site)
                self._waits(site, error, is_lost=is_lost)
            else:
                self._told.add(site)


def whole(words: Mapping[str, Any], name: str) -> int:
    """A number of images that a site says. Raises InputError if it is none."""
    value = words.get(name)
    if not isinstance(value, int) or not 0 <= value < MAX_IMAGES:
        raise InputError(f"it says {value!r} for {name}, and a number of images was expected; update fedmpt there")
    return value
