"""``fedmpt federation``: training between machines, from invitations to results.

It may import everything, as all of `cli`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

HELP = """usage: fedmpt federation COMMAND [OPTIONS]

Sites on their own machines train one model. Images never leave a site.

at the coordinator:
  init      set up a federation: certificates, the plan, an invitation for each site
  approve   sign a site's request
  start     start the server and the run; the same command goes on after any stop
  status    show who is there, the round, who failed and why
  shut-out  refuse a site's certificate from now on

at a site:
  request   answer an invitation: makes the site's private key, and a request to send
  join      take part: check the images, compute features, connect, train

examples:
  fedmpt federation init trial --sites a,b --address localhost:8102 --trial --backbone scenes-clip --rounds 5
  fedmpt federation join trial/sites/a --data folder:photos-a
  fedmpt federation start trial/coordinator
  fedmpt federation status trial/coordinator

docs/federation.md goes through it step by step. 'fedmpt federation COMMAND --help' lists a command's options.
"""

SUBCOMMANDS = ("init", "request", "approve", "join", "start", "status", "shut-out")


def federation(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if arguments[0] not in SUBCOMMANDS:
        from fedmpt.types import InputError

        raise InputError(f"unknown command {arguments[0]!r}; there are: {', '.join(SUBCOMMANDS)}")
    name = arguments[0].replace("-", "_")
    getattr(import_module(f"fedmpt.cli.federation.{name}"), name)(arguments[1:])


def needs_engine() -> None:
    """Raises InputError if the extra is not installed."""
    if find_spec("nvflare") is None:
        from fedmpt.types import InputError

        raise InputError("training between machines needs NVFlare (Linux): pip install 'fedmpt[federation]'")


def refuse_a_second(command: str, folder: Path, lock: Path) -> None:
    """Raises InputError while another process holds ``lock``: two would push each other out."""
    from fedmpt.files import is_held
    from fedmpt.types import InputError

    if lock.exists() and is_held(lock):
        raise InputError(f"fedmpt federation {command} runs already for {folder}, perhaps as a service; stop it first")
