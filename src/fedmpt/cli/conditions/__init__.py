"""``fedmpt conditions``: find, check, score and show the conditions of FedMPT.

It may import everything, as all of `cli`.
"""

from __future__ import annotations

from importlib import import_module

HELP = """usage: fedmpt conditions COMMAND [OPTIONS]

Conditions say why labels come together (lighting, spatial layout ...); FedMPT's prompts name them.

commands:
  generate    find conditions for your classes with a language model
  count       count labels that come together at one site, for generate at another
  check       look at conditions without a language model: overlap, class names in them, length, coverage
  score       measure how much a trained model uses each of its conditions, and how many it needs
  show        list the sets that come with the package, or print one
  attributes  describe classes with a language model, for FedMVP

examples:
  fedmpt conditions show
  fedmpt conditions generate --data voc:VOCdevkit --llm gpt-4o-mini --out conditions.json
  fedmpt conditions generate --classes classes.txt --llm llama3.1 --endpoint http://localhost:11434/v1 --out c.json
  fedmpt conditions check conditions.json --data voc:VOCdevkit --backbone openai/clip-vit-base-patch16
  fedmpt train --data voc:VOCdevkit --conditions conditions.json --out runs/a
  fedmpt conditions score --checkpoint runs/a/checkpoint --data voc:VOCdevkit

'fedmpt conditions COMMAND --help' lists a command's options.
"""

SUBCOMMANDS = ("generate", "count", "check", "score", "show", "attributes")


def conditions(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if arguments[0] not in SUBCOMMANDS:
        from fedmpt.types import InputError

        raise InputError(f"unknown command {arguments[0]!r}; there are: {', '.join(SUBCOMMANDS)}")
    getattr(import_module(f"fedmpt.cli.conditions.{arguments[0]}"), arguments[0])(arguments[1:])
