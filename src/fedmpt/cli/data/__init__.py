"""``fedmpt data``: what is in a data set, fetching one, and a look at how it is divided.

It may import everything, as all of `cli`.
"""

from __future__ import annotations

from importlib import import_module

HELP = """usage: fedmpt data COMMAND [OPTIONS]

commands:
  check      say what is in a folder, what is missing, and how many images show each class
  download   fetch a benchmark set from its official address
  partition  divide training images among clients, describe them, keep or draw that
  pairs      list the classes that training shows together more often than chance would

examples:
  fedmpt data check folder photos --images
  fedmpt data download voc2007 --out VOCdevkit
  fedmpt data partition --data voc:VOCdevkit --t 0.5 --plot clients.png
  fedmpt data pairs --data voc:VOCdevkit

'fedmpt data COMMAND --help' lists a command's options.
"""

SUBCOMMANDS = ("check", "download", "partition", "pairs")


def data(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if arguments[0] not in SUBCOMMANDS:
        from fedmpt.types import InputError

        raise InputError(f"unknown command {arguments[0]!r}; there are: {', '.join(SUBCOMMANDS)}")
    # Each has a module of its own, with a function of its name.
    getattr(import_module(f"fedmpt.cli.data.{arguments[0]}"), arguments[0])(arguments[1:])
