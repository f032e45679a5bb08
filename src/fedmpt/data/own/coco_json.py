"""COCO's instances format, as many annotation tools export it."""

from __future__ import annotations

from pathlib import Path

from fedmpt.data.datasets.coco import read_instances
from fedmpt.data.own.listing import Entries, Options, align, some
from fedmpt.data.own.vocabulary import Vocabulary, clean_name
from fedmpt.types import PRESENT, UNKNOWN, InputError


def read_coco(path: Path, options: Options, vocabulary: Vocabulary) -> Entries:
    """Images of a COCO file; its categories are the classes that were looked for in all of them.

    Raises:
        InputError: if the file is wrong, or two categories, or one with annotations, are none of the classes.
    """
    instances = read_instances(path)
    shown = dict(zip(instances.class_names, (instances.labels == PRESENT).any(dim=0).tolist(), strict=True))
    # Tools add a category for the whole project, which annotates nothing.
    extra = [name for name in shown if options.classes is not None and clean_name(name) not in options.classes]
    unused = [name for name in extra if not shown[name]]
    by_name: dict[str, str] = {}
    for category in instances.class_names:
        if category in unused:
            continue
        name = vocabulary.name(category, where=f"{path}, categories")
        if name in by_name:
            raise InputError(f"{path}, categories: {by_name[name]!r} and {category!r} are one class; keep one of them")
        by_name[name] = category
    class_names = tuple(sorted(by_name))
    categories = [by_name[name] for name in class_names]
    notes = (f"{path}: categories without annotations, left out: {some(unused)}",) if unused else ()
    return Entries(
        image_names=instances.file_names,
        places=tuple(f"{path}, images[{number}]" for number in range(len(instances.file_names))),
        class_names=class_names,
        labels=align(instances.labels, instances.class_names, categories, unlisted=UNKNOWN),
        unlisted=UNKNOWN,
        notes=notes,
    )
