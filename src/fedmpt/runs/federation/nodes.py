"""The clients of one data set, spread over processes on one or more machines: a simulation that outgrows one process.

Every node reads the same data set and can train any client, so a node that ends leaves its clients to the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from fedmpt.federated.balance import Balance
from fedmpt.federated.client import LocalResult, local_update
from fedmpt.federated.flare.messages import Message
from fedmpt.federated.flare.policy import Policy
from fedmpt.federated.rounds import Ask
from fedmpt.runs.federation.agreement import agreed_options, differences_of, own_versions
from fedmpt.runs.federation.exchange import ask_of, results_of, train_message, update_message
from fedmpt.runs.federation.membership import POLL
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.sites import WORDS_LIMIT, Sites
from fedmpt.runs.prepare import Prepared, prepare
from fedmpt.runs.records import fingerprints
from fedmpt.state import get_state, num_bytes
from fedmpt.types import InputError, State

ANSWER = 600.0
"""Seconds for a node to say what it has, once it has loaded it."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts to have clients trained, where all fail. The first pause is a second."""


class Node:
    """One process of a simulation, which answers the driver's messages."""

    def __init__(self, plan: Plan, *, cache: Path, note: Callable[[str], None], show_progress: bool) -> None:
        self._plan, self._note = plan, note
        self._prepared = prepare(plan.run, cache=cache, show_progress=show_progress)
        own = self._prepared
        self._balance = Balance.of(own.counts) if plan.run.training.balance else None
        _, self._initial = own.method.split(get_state(own.method))

    def handle(self, message: Message) -> Message:
        """The answer to a message. Raises InputError for one that it does not know, and where training diverges."""
        if message.kind == "describe":
            return Message("description", words_of(self._plan, self._prepared))
        if message.kind != "train":
            raise InputError(f"a node is asked for {message.kind!r}, which it does not know; update fedmpt")
        return self._train(message)

    def _train(self, message: Message) -> Message:
        own, run = self._prepared, self._plan.run
        shared, _ = own.method.split(own.method.state_dict())
        ask, _ = ask_of(message, shared, wire="float32")
        results = [
            local_update(
                own.method,
                ask.state,
                own.clients[client],
                personal=ask.personal.get(client, self._initial),
                client=client,
                round_index=ask.index,
                seed=run.seed,
                learning_rate=ask.learning_rate,
                training=run.training,
                balance=self._balance,
            )
            for client in ask.clients
        ]
        self._note(f"round {ask.index}: trained {len(results)} clients")
        return update_message(results, ask.state, wire="float32", with_personal=True)


def words_of(plan: Plan, prepared: Prepared) -> dict[str, object]:
    """What must be the same at the driver and at every node."""
    return {
        "options": agreed_options(plan.run),
        "versions": own_versions(),
        "backbone": fingerprints(prepared.backbone, prepared.data.class_names),
        "data": prepared.ready.digests["train"],
    }


def shares_of(waiting: list[int], nodes: list[str], *, most: int) -> dict[str, list[int]]:
    """Which clients each node trains next: about the same number, and no more than ``most``, or one, whose answers fit
    into one message."""
    return {node: waiting[place :: len(nodes)][: max(1, most)] for place, node in enumerate(nodes)}


@dataclass
class Nodes:
    """The driver's side: has the clients of a round trained by the nodes that are there.

    ``expected`` says which nodes are there or may still come. It raises InputError if there are none.
    """

    sites: Sites
    prepared: Prepared
    expected: Callable[[], Set[str]]
    ready: set[str] = field(default_factory=set)
    has_begun: bool = False

    def updates(self, ask: Ask, initial: State) -> Iterator[LocalResult]:
        """The clients' results in the order of their numbers, the same as in one process. Nodes know ``initial``.

        Raises:
            InputError: if a node has other data or options, if training diverges, or if for too long no node is there
                or none trains a client.
        """
        found: dict[int, LocalResult] = {}
        failed_since, pause = None, 1.0
        while waiting := [client for client in ask.clients if client not in found]:
            new = self._asked(ask, waiting, self._present())
            found |= new
            if new:
                failed_since, pause = None, 1.0
                continue
            failed_since = failed_since or time.monotonic()
            if (waited := time.monotonic() - failed_since) > self.sites.plan.rules.patience:
                why = "; ".join(
                    f"{node}: {told.reason}" for node, told in self.sites.status.sites.items() if told.reason
                )
                raise InputError(f"no node has trained a client for {waited:.0f} s ({why}); continue with --resume")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        for client in ask.clients:
            yield found[client]

    def _asked(self, ask: Ask, waiting: list[int], nodes: list[str]) -> dict[int, LocalResult]:
        """The results of those clients whose node answers."""
        full = num_bytes(get_state(self.prepared.method))
        shares = shares_of(waiting, nodes, most=(Policy().max_bytes - WORDS_LIMIT) // (2 * full + 1024))
        messages = {node: train_message(ask, own, wire="float32", best=0) for node, own in shares.items() if own}
        most = max(map(len, shares.values()))
        limit = most * (2 * full + 1024) + WORDS_LIMIT
        found: dict[int, LocalResult] = {}
        for node, answer, error, is_lost in self.sites.asked(
            messages, timeout=self.sites.plan.rules.deadline, limit=limit
        ):
            if answer is None and not is_lost:
                raise InputError(error)
            if answer is None:
                self.ready.discard(node)
                self.sites.changed(node, "away", f"round {ask.index}: {error}; other nodes train its clients")
                continue
            for result in results_of(answer, ask, clients=shares[node], wire="float32", source=f"node {node}"):
                found[result.update.client] = result
        return found

    def _present(self) -> list[str]:
        """Nodes that have the same data and options, once there is one."""
        rules, began = self.sites.plan.rules, time.monotonic()
        while True:
            connected = self.sites.connected()
            self.ready &= set(connected)
            self._describe([node for node in connected if node not in self.ready])
            expected, waited = self.expected(), time.monotonic() - began
            if self.ready and (self.has_begun or self.ready >= expected or waited >= rules.gather):
                self.has_begun = True
                return sorted(self.ready)
            if waited > rules.patience:
                raise InputError(f"no node is there for {waited:.0f} s; start them, then continue with --resume")
            time.sleep(POLL)

    def _describe(self, new: list[str]) -> None:
        here = words_of(self.sites.plan, self.prepared)
        message = Message("describe", {})
        for node, answer, error, is_lost in self.sites.asked(
            dict.fromkeys(new, message), timeout=ANSWER, limit=WORDS_LIMIT
        ):
            if answer is None:
                if not is_lost:
                    raise InputError(f"node {node}: {error}")
                continue
            if different := differences_of(here, answer.words, here="here", there="there"):
                raise InputError(f"node {node} does not fit: {'; '.join(different)}")
            self.ready.add(node)
            self.sites.changed(node, "here")
