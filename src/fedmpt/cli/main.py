"""The ``fedmpt`` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

HELP = """usage: fedmpt COMMAND [OPTIONS]

Federated multi-label recognition with a frozen vision-language model.

commands:
  train      train a method across clients and score it
  tune       find options of training for your own images, without the test set
  evaluate   score a checkpoint on a data set
  calibrate  fit the thresholds of a finished run anew, with other options of prediction
  predict    print labels of images
  methods    list the methods: what each trains, sends and reads
  conditions find, check and score what FedMPT's prompts name: 'fedmpt conditions --help'
  data       check, fetch and divide data sets: 'fedmpt data --help'
  federation train between machines, each with its own images: 'fedmpt federation --help'
  features   compute, list and remove stored image features: 'fedmpt features --help'
  demo       try three methods on drawn pictures, without data, weights or network

examples:
  fedmpt data check folder photos
  fedmpt train --data voc:VOCdevkit --setting heterogeneous --t 0.5 --out runs/a
  fedmpt train --data voc:VOCdevkit --method promptfl --seed 1 --out runs/b
  fedmpt tune --data folder:photos --out runs/tune
  fedmpt evaluate --checkpoint runs/a/checkpoint --data voc:VOCdevkit
  fedmpt predict --checkpoint runs/a/checkpoint photo.jpg
  fedmpt demo --out runs/demo

'fedmpt COMMAND --help' lists a command's options.
"""


# Each has a module of its own, with a function of its name.
COMMANDS = (
    "train",
    "tune",
    "evaluate",
    "calibrate",
    "predict",
    "methods",
    "conditions",
    "data",
    "federation",
    "features",
    "demo",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 2 wrong input, 130 interrupted; anything else is a fault of ours."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if given[0] == "--version":
        from fedmpt import __version__

        print(f"fedmpt {__version__}")
        return
    sys.exit(_run(given[0], given[1:]))


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        *names, last = COMMANDS
        print(f"fedmpt: unknown command {command!r}; there are {', '.join(names)} and {last}", file=sys.stderr)
        return 2
    try:
        # Imported late: --help and --version need none of it.
        getattr(import_module(f"fedmpt.cli.{command}"), command)(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # The reader, say `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"fedmpt {command}: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except ValueError as error:
        from fedmpt.types import InputError

        if not isinstance(error, InputError):
            raise
        print(f"fedmpt {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"fedmpt {command}: interrupted{stop}", file=sys.stderr)
        return 130
    return 0
