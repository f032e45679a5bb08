"""What is in the folder of a data set, what is missing, and which layout is expected there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.data.datasets import coco, mlrsnet, multi_scene, nus_wide, voc
from fedmpt.data.datasets.benchmark import Part
from fedmpt.data.load import parse_spec
from fedmpt.data.progress import map_ahead, progress_bar
from fedmpt.data.reading import not_shown
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, ImageData, InputError

LAYOUTS: Mapping[str, Sequence[Part]] = {
    "voc": voc.LAYOUT,
    "coco": coco.LAYOUT,
    "nus-wide": nus_wide.LAYOUT,
    "multi-scene": multi_scene.LAYOUT,
    "mlrsnet": mlrsnet.LAYOUT,
}
"""The parts of the folders of data sets that have a layout of their own."""


def check_data(spec: str, *, cache: Path) -> tuple[dict[str, Any], ImageData | None]:
    """What is found of a data set, named as for `fedmpt.data.load_data`, as JSON holds it; and the data, None where
    they cannot be loaded.

    ``problem`` is why they cannot. ``parts`` are those of a benchmark's layout; one that is ``found`` nowhere is None,
    and ``files`` counts what a folder holds. Each of ``splits`` has the images that show each class, do not, or leave
    it open.

    Raises InputError if there is no such data set, or an option is wrong.
    """
    load = parse_spec(spec, cache=cache)
    name = spec.partition(":")[0]
    root = load.keywords.get("path", cache)
    layout, parts = LAYOUTS.get(name, ()), []
    for part in layout:
        path = part.find(root)
        files = sum(len(files) for _, _, files in os.walk(path)) if path and part.is_folder else None
        words = {"what": part.what, "example": part.inside, "required": part.required}
        place = path and path.relative_to(root).as_posix()
        parts.append({"paths": list(part.paths), **words, "found": place, "files": files})
    found = {"name": name, "path": str(root), "parts": parts}
    try:
        data = load()
    except InputError as error:
        return {**found, "classes": [], "splits": [], "notes": [], "problem": str(error)}, None
    splits = [
        {"split": split.name, "images": len(split)}
        | {
            kind: dict(zip(data.class_names, (split.labels == label).sum(dim=0).tolist(), strict=True))
            for kind, label in (("present", PRESENT), ("absent", ABSENT), ("unknown", UNKNOWN))
        }
        for split in (data.train, data.test)
    ]
    notes = list(data.notes)
    for split in (data.train, data.test) if layout else ():  # Readers of users' own data say it themselves.
        if lacking := not_shown(data.class_names, split):
            notes.append(f"{split.name}: no image shows {', '.join(lacking)}")
    return {**found, "classes": list(data.class_names), "splits": splits, "notes": notes, "problem": None}, data


def unreadable_images(data: ImageData) -> tuple[InputError, ...]:
    """Opens every image, with a progress bar; the messages of those that cannot be read."""
    from fedmpt.data.images import quiet_pillow, read_image

    def problem(path: Path) -> InputError | None:
        try:
            read_image(path)
        except InputError as error:
            return error
        return None

    files, found = (*data.train.files, *data.test.files), list[InputError]()
    with progress_bar("opening images", len(files), enabled=True, is_long=True) as advance, quiet_pillow():
        for error in map_ahead(problem, files, ahead=32):
            found += [error] if error else []
            advance(1)
    return tuple(found)
