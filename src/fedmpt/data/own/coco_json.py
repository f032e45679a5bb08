"""COCO's instances format, as many annotation tools export it."""

from __future__ import annotations

from pathlib import Path

from fedmpt.data.datasets.coco import read_instances
from fedmpt.data.own.listing import Entries, Options, Source
from fedmpt.data.own.vocabulary import clean_name
from fedmpt.data.reading import align, some
from fedmpt.types import PRESENT, UNKNOWN

LAYOUT = "annotations.json, or a pair such as train.json and val.json, in COCO's instances format"


def is_instances(path: Path) -> bool:
    """Whether COCO's three lists are in the text; the file may be wrong JSON all the same."""
    content = path.read_bytes()
    return all(key in content for key in (b'"images"', b'"annotations"', b'"categories"'))


def read_coco(source: Source, options: Options) -> Entries:
    """Images of a COCO file; its categories are the classes that were looked for in all of them.

    Raises InputError if the file is wrong, or two categories, or one with annotations, are none of the classes.
    """
    path, given = source.path, options.class_names
    instances = read_instances(path)
    unused: list[str] = []
    if given is not None:  # Tools add a category for the whole project, which annotates nothing.
        shown = (instances.labels == PRESENT).any(dim=0).tolist()
        pairs = zip(instances.class_names, shown, strict=True)
        unused = [category for category, is_shown in pairs if clean_name(category) not in given and not is_shown]
    categories = [category for category in instances.class_names if category not in unused]
    by_name = options.vocabulary.unique(categories, where=f"{path}, categories")
    return Entries(
        image_names=instances.file_names,
        places=tuple(f"{path}, images[{number}]" for number in range(len(instances.file_names))),
        class_names=tuple(by_name),
        labels=align(instances.labels, instances.class_names, list(by_name.values()), unlisted=UNKNOWN),
        unlisted=UNKNOWN,
        notes=(f"{path}: categories without annotations, left out: {some(unused)}",) if unused else (),
    )
