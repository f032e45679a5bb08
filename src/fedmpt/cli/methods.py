"""``fedmpt methods``: what there is to train, with sizes counted on the shapes of CLIP ViT-B/16."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

CALIBRATION = "calibration."
"""How parameters of the shared head begin: two numbers that make scores of single-prompt methods probabilities."""


@dataclass(frozen=True)
class MethodsOptions:
    """List the methods that `fedmpt train --method` takes, with what each trains, sends and reads.

    Parameters are counted for CLIP ViT-B/16 and the 20 classes of VOC, without any weights.

    For example:

    fedmpt methods

    fedmpt methods --json
    """

    json: bool = False
    """One JSON list, for machines."""


def methods(arguments: list[str]) -> None:
    options = tyro.cli(MethodsOptions, args=arguments, prog="fedmpt methods")
    found = facts()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def facts() -> list[dict[str, Any]]:
    """Of every method at its defaults, in the order of the table of methods."""
    import torch

    from fedmpt.backbone.image_tower import shapes_of
    from fedmpt.data.datasets.voc import CLASS_NAMES
    from fedmpt.methods import METHODS
    from fedmpt.state import num_bytes

    backbone = shapes_of()
    found = []
    for name, config in METHODS.items():
        method = config().build(backbone, CLASS_NAMES, generator=torch.Generator().manual_seed(0))
        sizes = {part: parameter.numel() for part, parameter in method.named_parameters()}
        head = sum(size for part, size in sizes.items() if part.startswith(CALIBRATION))
        views = (*method.views.values(), *method.training_views.values())
        # FedMPT's conditions stand in its config; attributes are looked up.
        attributes = ["class attributes"] if method.sources.keys() - {"conditions"} else []
        row = {
            "name": name,
            "summary": config.summary,
            "source": config.source,
            "parameters": sum(sizes.values()) - head,  # Trained numbers, without those of the shared head: 2 or 0.
            "head_parameters": head,
            "personal_parameters": sum(sizes[part] for part in method.personal),  # Those that stay with their client.
            "sent_bytes": num_bytes(method.split(method.state_dict())[0]),  # In a round, running statistics included.
            "reads": ["features", *(view.label for view in views), *attributes],
            "learning_rate": config.learning_rate,
        }
        found.append(row)
    return found


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title="methods; sizes with CLIP ViT-B/16 and 20 classes", title_justify="left", show_lines=True)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it is")
    for column in ("parameters", "sent a round"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("reads")
    for row in rows:
        head = f" + {row['head_parameters']}" if row["head_parameters"] else ""
        personal = f"\n{row['personal_parameters']:,} stay home" if row["personal_parameters"] else ""
        table.add_row(
            row["name"],
            f"{row['summary']}\n[dim]{row['source']}[/dim]",
            f"{row['parameters']:,}{head}{personal}",
            decimal(row["sent_bytes"]),
            ", ".join(row["reads"]),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("+ 2: scale and bias of the shared head, which make a method's scores probabilities")
    console.print("options of one: fedmpt train --method NAME --help", markup=False)
