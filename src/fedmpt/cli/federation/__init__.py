"""``fedmpt federation``: training between machines, set up, run and looked at.

It may import everything, as all of `cli`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

HELP = """usage: fedmpt federation COMMAND [OPTIONS]

Sites train on their own machines, on their own images. Only what is trained leaves a site.

commands, in their order:
  init      coordinator: choose the method, make certificates, and an invitation for each site
  request   site: make a private key, which stays, and a request for its certificate
  approve   coordinator: sign a site's request
  shut-out  coordinator: refuse a site's certificate from now on, say when its key was lost

examples:
  fedmpt federation init fed --sites clinic-a,clinic-b --address fl.example.org:8102 --method promptfl
  fedmpt federation request clinic-a.json
  fedmpt federation approve clinic-a.request.zip --coordinator fed/coordinator
  fedmpt federation init trial --sites a,b --address localhost:8102 --trial

'fedmpt federation COMMAND --help' lists a command's options.
"""

# Each has a module of its own, with a function of its name.
SUBCOMMANDS = (
    "init",
    "request",
    "approve",
    "shut-out",
)


def federation(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    from fedmpt.types import InputError

    if arguments[0] not in SUBCOMMANDS:
        raise InputError(f"unknown command {arguments[0]!r}; there are: {', '.join(SUBCOMMANDS)}")
    if find_spec("nvflare") is None:
        raise InputError("a federation needs nvflare, which runs on Linux; pip install 'fedmpt[federation]'")
    name = arguments[0].replace("-", "_")
    getattr(import_module(f"fedmpt.cli.federation.{name}"), name)(arguments[1:])
