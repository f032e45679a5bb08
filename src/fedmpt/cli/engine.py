"""``fedmpt train --engine flare``: the clients of one data set in several processes, here or on several machines."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedmpt.errors import InputError

if TYPE_CHECKING:
    from fedmpt.federated.flare.processes import Child
    from fedmpt.runs.config import RunConfig
    from fedmpt.runs.federation.plan import Plan
    from fedmpt.runs.prepare import Prepared
    from fedmpt.runs.run import Updates

KITS = ".nodes"
COMMAND = [sys.executable, "-c", "from fedmpt.cli.main import main; main()", "federation", "join"]
DAYS = 1095
"""That the nodes' certificates last. A run that goes on later has the same."""
LONGEST_WORK = 86400.0
"""Seconds that a node has for its clients of a round. One that dies is noticed long before."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """``nodes`` processes train the clients of a run. With an ``address``, HOST:PORT, they are started by the user, on
    any machine that has the data; without one they are started here."""

    config: RunConfig
    nodes: int
    address: str | None
    cache: Path
    note: Callable[[str], None]

    @contextmanager
    def workers(self, prepared: Prepared, out: Path) -> Iterator[Updates]:
        """Start the server, and the nodes where they are ours; end them with the run."""
        from fedmpt.federated.flare.authority import assemble_server
        from fedmpt.federated.flare.link import Link
        from fedmpt.runs.federation.nodes import Nodes
        from fedmpt.runs.federation.sites import Sites
        from fedmpt.runs.federation.status import Status

        folder = out / KITS
        plan = self.plan()
        self._set_up(folder, plan)
        coordinator = folder / "coordinator"
        started: dict[str, Child] = {}
        assemble_server(coordinator)
        try:
            with Link(coordinator, note=self.note) as link:
                if self.address is None:
                    started |= {node: self._join(folder / "sites" / node) for node in plan.sites}
                else:
                    first = folder / "sites" / plan.sites[0]
                    self.note(f"start a node on each machine: fedmpt federation join {first}, and so on")
                sites = Sites(plan, link, coordinator, Status.read(coordinator, plan.sites), self.note)
                yield Nodes(sites, prepared, lambda: self._expected(plan, started)).updates
        finally:
            for child in started.values():  # All at once, as each may take seconds.
                os.kill(child.pid, signal.SIGTERM)
            for child in started.values():
                child.stop()
            if self.address is None:
                shutil.rmtree(folder, ignore_errors=True)

    def plan(self) -> Plan:
        """Raises InputError for an address that is none, or that another program has."""
        from fedmpt.cli.federation.start import check_address
        from fedmpt.runs.federation.plan import Plan, Rules

        plan = Plan(
            name="nodes",
            sites=tuple(sorted(f"node-{number + 1}" for number in range(self.nodes))),
            address=self.address or f"localhost:{free_port()}",
            run=replace(self.config, method=self.config.method.resolved()),
            rules=Rules(min_sites=1, deadline=LONGEST_WORK, gather=600, patience=3600),
            is_simulation=True,
        )
        plan.check()
        check_address(plan)
        return plan

    def _expected(self, plan: Plan, started: dict[str, Child]) -> Set[str]:
        """The nodes that are there or may come. One that was started here and has ended is taken out of ``started``;
        nobody starts it again.

        Raises:
            InputError: if all that were started here have ended.
        """
        from fedmpt.federated.flare.processes import how_it_ended

        for node, child in list(started.items()):
            if (code := child.poll()) is not None:
                del started[node]
                text = f"{node} has ended ({how_it_ended(code)}); what it said stands above"
                if not started:
                    raise InputError(f"{text}, and no node is left. Mend that, and give the command with --resume")
                self.note(f"{text}. The other nodes train its clients")
        return started.keys() if self.address is None else frozenset(plan.sites)

    def _set_up(self, folder: Path, plan: Plan) -> None:
        """Kits for all nodes; those of a run that goes on stay, as machines may have copies."""
        from fedmpt.federated.flare.founding import set_up
        from fedmpt.runs.federation.run import load_plan

        if (folder / "coordinator").exists():
            if self.address is not None and load_plan(folder / "coordinator") == plan:
                return
            shutil.rmtree(folder)
        address = (plan.host, plan.port)
        set_up(folder, plan.to_json(), address=address, days=DAYS, root_days=2 * DAYS, trial=True)

    def _join(self, kit: Path) -> Child:
        from fedmpt.federated.flare.processes import Child

        options = ["--cache", str(self.cache), "--device", self.config.device, "--quiet"]
        options += ["--backbone", self.config.backbone]  # Said here, it may be code: the plan's may not.
        return Child([*COMMAND, str(kit), *options], env={})


def free_port() -> int:
    """One that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])
