"""``fedmpt federation start``: the coordinator's server and the run."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.runs.federation.plan import Plan


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """Start the coordinator: its server, then the run. Ends when the run has; the same command goes on after any stop.

    Results are in COORDINATOR/run, as those of fedmpt train. Whoever left is waited for as the plan says; see
    `fedmpt federation status`.

    For example:

    fedmpt federation start trial/coordinator

    fedmpt federation start trial/coordinator --test folder:test-photos
    """

    coordinator: tyro.conf.Positional[Path]
    """The coordinator's folder, which `fedmpt federation init` made."""
    test: str | None = None
    """Test images that lie here, NAME:PATH, to score the model on as well; each site scores it on its own in any
    case."""
    backbone: str | None = None
    """Frozen model, if it is not where the plan says; it must be the same model."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    quiet: bool = False
    """Print nothing but errors."""


def start(arguments: list[str]) -> None:
    options = tyro.cli(StartOptions, args=arguments, prog="fedmpt federation start")
    from fedmpt.cli.federation import needs_engine

    needs_engine()
    from fedmpt.cli.progress import TerminalWatcher
    from fedmpt.cli.tables import print_scores, print_sites
    from fedmpt.federated.flare.authority import assemble_server
    from fedmpt.federated.flare.link import Link
    from fedmpt.files import exclusive
    from fedmpt.runs.federation.run import RUN, Options, load_plan, run_federation

    folder = options.coordinator
    plan = load_plan(folder)
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True, emoji=False)

    def note(text: str) -> None:
        console.print(text, markup=False)

    chosen = Options(
        backbone=options.backbone,
        device=options.device,
        test=options.test,
        cache=cache_folder(options.cache),
        show_progress=not options.quiet,
    )
    try:
        with _status_says_sigterm(), exclusive(folder):  # A second server would remove the first one's jobs.
            check_address(plan)
            assemble_server(folder)
            with TerminalWatcher(console) as watcher, Link(folder, note=note) as link:
                results = run_federation(plan, link, folder=folder, options=chosen, watcher=watcher, note=note)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"; complete rounds are stored, continue with: fedmpt federation start {folder}"
        ) from stop
    if not options.quiet:
        print_scores(results)
        print_sites(results)
        note(f"the run is in {folder / RUN}")


@contextmanager
def _status_says_sigterm() -> Iterator[None]:
    """SIGTERM ends the process as it does without this, but all that is open is closed before."""
    from fedmpt.runs.federation.run import Terminated

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # A second one ends it at once.
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Terminated:
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def check_address(plan: Plan) -> None:
    """Raises InputError if another program listens on the port, or if nobody knows the host: NVFlare would only try on
    and on."""
    from fedmpt.types import InputError

    port = plan.port
    try:
        socket.getaddrinfo(plan.host, port)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--address {plan.address}: this machine does not know the name {plan.host}; correct it, or enter it in "
            "/etc/hosts"
        ) from error
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # What is left of a server before is no program.
        try:
            one.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"--address {plan.address}: port {port} is taken on this machine: another program listens there, "
                    "perhaps another federation (ss -ltnp shows which). Stop it, or choose another port"
                ) from error
            raise InputError(
                f"--address {plan.address}: port {port} cannot be used: {error.strerror}; ports below 1024 need more "
                "rights"
            ) from error
