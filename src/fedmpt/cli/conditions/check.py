"""``fedmpt conditions check``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import tyro

from fedmpt.cli.cache import cache_folder


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Look at conditions without a language model.

    Says which have a class in their name, how long prompts get, whether the text tower takes two conditions for the
    same or hardly sees a difference at all, and how many of the sentences speak of each.

    For example:

    fedmpt conditions check conditions.json

    fedmpt conditions check generic --data voc:VOCdevkit --backbone openai/clip-vit-base-patch16
    """

    conditions: tyro.conf.Positional[str]
    """Name of a shipped set or path of a file."""
    classes: Path | None = None
    """File with a class name a line, or a JSON list; the classes that the set was made for unless given."""
    data: str | None = None
    """Data set, NAME:PATH, for its list of classes."""
    backbone: str | None = None
    """Frozen model whose text tower is asked, as in fedmpt train."""
    json: bool = False
    """JSON, for machines."""
    cache: Path | None = None
    """Folder for data; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def check(arguments: list[str]) -> None:
    options = tyro.cli(CheckOptions, args=arguments, prog="fedmpt conditions check")
    # Imported late: help and mistyped options must not wait for torch.
    from fedmpt.cli.conditions.names import class_names_of
    from fedmpt.conditions.checks import check_conditions
    from fedmpt.conditions.record import find_conditions

    found = find_conditions(options.conditions)
    made_for = found.provenance.get("classes")
    class_names = tuple(made_for) if isinstance(made_for, list) else None
    if options.classes is not None or options.data is not None:
        class_names = class_names_of(options.classes, options.data, cache=cache_folder(options.cache))
    backbone = encode = None
    if options.backbone is not None:
        from fedmpt.backbone import load_backbone
        from fedmpt.backbone.text_tower import TextTower
        from fedmpt.methods.parts.prompts import hand_written_features

        backbone = load_backbone(options.backbone)
        encode = partial(hand_written_features, TextTower(backbone))
    findings = check_conditions(found, class_names=class_names, backbone=backbone, encode=encode)
    if options.json:
        print(json.dumps(asdict(findings), indent=2))
        return
    lengths, overlap, covered = findings.lengths, findings.overlap, findings.coverage
    print(f"conditions of {found.name}: {', '.join(found.names)}")
    if covered:
        for name, share in covered["shares"].items():
            print(f"{name}: {share:.0%} of the sentences speak of it")
        print(f"{covered['covered']:.0%} of {covered['num_sentences']} sentences speak of a condition")
    if lengths:
        print(f"longest prompt: {lengths['longest']} of {lengths['limit']} tokens")
    if overlap and overlap["difference"] is not None:
        moved = f"{overlap['difference']:.2%}"
        print(f"prompts of a class under two conditions differ by {moved} of what two classes differ by")
    for problem in findings.problems:
        print(f"look at this: {problem}")
    if not findings.problems:
        print(f"nothing found against it{'' if overlap else '; give --backbone to see what a text tower makes of it'}")
