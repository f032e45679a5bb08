"""What is in the folder of a data set, what is missing, and which layout is expected there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmpt.data.datasets import coco, mlrsnet, multi_scene, nus_wide, voc
from fedmpt.data.datasets.benchmark import Part
from fedmpt.data.features.ahead import map_ahead, progress_bar
from fedmpt.data.load import parse_spec
from fedmpt.data.own.folder import not_shown
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, ImageData, InputError, Split

LAYOUTS: Mapping[str, Sequence[Part]] = {
    "voc": voc.LAYOUT,
    "coco": coco.LAYOUT,
    "nus-wide": nus_wide.LAYOUT,
    "multi-scene": multi_scene.LAYOUT,
    "mlrsnet": mlrsnet.LAYOUT,
}
"""The parts of the folders of data sets that have a layout of their own."""

LABELS = {"present": PRESENT, "absent": ABSENT, "unknown": UNKNOWN}


@dataclass(frozen=True)
class FoundPart:
    """A part of the layout: ``found`` is where it is below the folder, None where it is missing.

    ``num_files`` counts the files in a folder, those of its folders included.
    """

    part: Part
    found: str | None
    num_files: int | None = None


@dataclass(frozen=True)
class SplitCounts:
    """How many images a split has, and in how many of them each class is present, absent and unknown."""

    name: str
    num_images: int
    present: tuple[int, ...]
    absent: tuple[int, ...]
    unknown: tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """The state of a folder. ``problem`` is why the data set cannot be loaded; then nothing is counted."""

    name: str
    path: Path
    parts: tuple[FoundPart, ...]
    class_names: tuple[str, ...] = ()
    splits: tuple[SplitCounts, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON writes it, each count under the name of its class."""
        return {
            "name": self.name,
            "path": str(self.path),
            "parts": [
                {
                    "paths": list(found.part.paths),
                    "what": found.part.what,
                    "required": found.part.required,
                    "found": found.found,
                    "files": found.num_files,
                }
                for found in self.parts
            ],
            "classes": list(self.class_names),
            "splits": [
                {"split": split.name, "images": split.num_images}
                | {kind: dict(zip(self.class_names, getattr(split, kind), strict=True)) for kind in LABELS}
                for split in self.splits
            ],
            "notes": list(self.notes),
            "problem": self.problem,
        }


def check_data(name: str, path: str, *, cache: Path) -> tuple[Check, ImageData | None]:
    """Load data set ``name`` from ``path``, with options behind it as in `fedmpt.data.load_data`, and look for the
    parts of a benchmark's layout. The data are None where they cannot be loaded: why is the result's ``problem``.

    Raises:
        InputError: if there is no such data set, or an option is wrong.
    """
    spec = parse_spec(f"{name}:{path}", cache=cache)
    root = spec.path or cache
    parts = tuple(_look_for(part, root) for part in LAYOUTS.get(name, ()))
    try:
        data = spec.load()
    except InputError as error:
        return Check(name, root, parts, problem=str(error)), None
    splits = (data.train, data.test)
    notes = data.notes
    if parts:  # Readers of users' own data say themselves which classes no image shows.
        lacking = [(split.name, not_shown(data.class_names, split)) for split in splits]
        notes += tuple(f"{split}: no image shows {', '.join(names)}" for split, names in lacking if names)
    return Check(name, root, parts, data.class_names, tuple(map(count, splits)), notes), data


def unreadable_images(data: ImageData) -> tuple[InputError, ...]:
    """Opens every image, with a progress bar; the messages of those that cannot be read."""
    from fedmpt.data.features.store import NUM_WORKERS  # Imported here: all else needs no picture.
    from fedmpt.data.images import quiet_pillow, read_image

    def problem(path: Path) -> InputError | None:
        try:
            read_image(path)
        except InputError as error:
            return error
        return None

    files = (*data.train.files, *data.test.files)
    found: list[InputError] = []
    stream = map_ahead(problem, files, num_workers=NUM_WORKERS, ahead=4 * NUM_WORKERS)
    with progress_bar("opening images", len(files), enabled=True, is_long=True) as advance, quiet_pillow():
        for error in stream:
            found += [error] if error else []
            advance(1)
    return tuple(found)


def count(split: Split) -> SplitCounts:
    """The counts of one split of any data set."""
    counts = {kind: tuple((split.labels == label).sum(dim=0).tolist()) for kind, label in LABELS.items()}
    return SplitCounts(split.name, len(split), **counts)


def layout_text(name: str) -> str:
    """The folder that benchmark ``name`` expects, as an indented tree with a word on each part."""
    lines: dict[str, str] = {}
    for part in LAYOUTS[name]:
        *folders, last = part.paths[0].split("/")
        for depth, folder in enumerate(folders):
            lines.setdefault(f"{'  ' * (depth + 1)}{folder}/", "")
        indent, end = "  " * (len(folders) + 1), "/" if part.is_folder else ""
        others = [f"or PATH/{other}{end}" for other in part.paths[1:]]
        lines[f"{indent}{last}{end}"] = "; ".join([part.what, *others, *([] if part.required else ["may be missing"])])
        if part.inside:
            lines[f"{indent}  {part.inside}"] = "for example"
    width = max(map(len, lines)) + 2
    return "\n".join(["PATH/", *(f"{place.ljust(width)}{words}".rstrip() for place, words in lines.items())])


def _look_for(part: Part, root: Path) -> FoundPart:
    path = part.find(root)
    if path is None:
        return FoundPart(part, None)
    num_files = sum(len(files) for _, _, files in os.walk(path)) if part.is_folder else None
    return FoundPart(part, path.relative_to(root).as_posix(), num_files)
