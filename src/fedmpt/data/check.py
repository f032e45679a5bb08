"""What is in the folder of a benchmark, what is missing, and which layout is expected there."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedmpt.data.datasets import coco, mlrsnet, multi_scene, nus_wide, voc
from fedmpt.data.load import parse_spec
from fedmpt.data.progress import map_ahead, progress_bar
from fedmpt.data.reading import Part, closest
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, ImageData, InputError, Split


@dataclass(frozen=True)
class Benchmark:
    """A data set with a layout of its own: what loads it, and the parts of its folder."""

    loader: Callable[..., ImageData]
    layout: tuple[Part, ...]


BENCHMARKS: Mapping[str, Benchmark] = {
    "voc": Benchmark(voc.load_voc, voc.LAYOUT),
    "coco": Benchmark(coco.load_coco, coco.LAYOUT),
    "nus-wide": Benchmark(nus_wide.load_nus_wide, nus_wide.LAYOUT),
    "multi-scene": Benchmark(multi_scene.load_multi_scene, multi_scene.LAYOUT),
    "mlrsnet": Benchmark(mlrsnet.load_mlrsnet, mlrsnet.LAYOUT),
}


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
        counts = [
            {"split": split.name, "images": split.num_images}
            | {
                kind: dict(zip(self.class_names, getattr(split, kind), strict=True))
                for kind in ("present", "absent", "unknown")
            }
            for split in self.splits
        ]
        parts = [
            {
                "paths": list(found.part.paths),
                "what": found.part.what,
                "required": found.part.required,
                "found": found.found,
                "files": found.num_files,
            }
            for found in self.parts
        ]
        return {
            "name": self.name,
            "path": str(self.path),
            "parts": parts,
            "classes": list(self.class_names),
            "splits": counts,
            "notes": list(self.notes),
            "problem": self.problem,
        }


def check_data(name: str, path: Path, **options: Any) -> Check:
    """Look for the parts of benchmark ``name`` below ``path``, and load it with the ``options`` of its loader.

    What is wrong with the folder is the result's ``problem``, never an exception.

    Raises:
        InputError: if there is no such benchmark, or an option is not one of its loader's.
    """
    benchmark = _benchmark(name)
    known = [option for option in inspect.signature(benchmark.loader).parameters if option != "path"]
    for option in options:
        if option not in known:
            hint = closest(option, known) or f"; options are: {', '.join(known) or 'none'}"
            raise InputError(f"{name}: unknown option {option!r}{hint}")
    return _check(name, path, partial(benchmark.loader, path, **options))[0]


def check_spec(name: str, path: str, *, cache: Path) -> tuple[Check, ImageData | None]:
    """`check_data` of any data set, with options behind the path as in `fedmpt.data.load_data`; the data where they
    load. Only benchmarks have a layout to look for.

    Raises:
        InputError: if there is no such data set, or an option is wrong.
    """
    spec = parse_spec(f"{name}:{path}", cache=cache)
    return _check(name, spec.path or cache, spec.load)


def _check(name: str, path: Path, load: Callable[[], ImageData]) -> tuple[Check, ImageData | None]:
    layout = BENCHMARKS[name].layout if name in BENCHMARKS else ()
    parts = tuple(_look_for(part, path) for part in layout)
    try:
        data = load()
    except InputError as error:
        return Check(name, path, parts, problem=str(error)), None
    splits = tuple(count(split) for split in (data.train, data.test))
    # Readers of users' own data say themselves which classes no image shows.
    notes = (*data.notes, *(_without_positives(data.class_names, splits) if layout else ()))
    return Check(name, path, parts, data.class_names, splits, notes), data


def unreadable_images(data: ImageData) -> tuple[InputError, ...]:
    """Opens every image, with a progress bar; the messages of those that cannot be read."""
    from fedmpt.data.images import quiet_pillow, read_image  # Imported here: all else needs no picture.

    def problem(path: Path) -> InputError | None:
        try:
            read_image(path)
        except InputError as error:
            return error
        return None

    files = (*data.train.files, *data.test.files)
    found: list[InputError] = []
    stream = map_ahead(problem, files, ahead=32)
    with progress_bar("opening images", len(files), enabled=True, is_long=True) as advance, quiet_pillow():
        for error in stream:
            found += [error] if error else []
            advance(1)
    return tuple(found)


def count(split: Split) -> SplitCounts:
    """The counts of one split of any data set."""
    present, absent, unknown = (
        tuple((split.labels == label).sum(dim=0).tolist()) for label in (PRESENT, ABSENT, UNKNOWN)
    )
    return SplitCounts(split.name, len(split), present, absent, unknown)


def layout_text(name: str) -> str:
    """The folder that benchmark ``name`` expects, as an indented tree with a word on each part.

    Raises:
        InputError: if there is no such benchmark.
    """
    lines: list[tuple[str, str]] = []
    shown: set[str] = set()
    for part in _benchmark(name).layout:
        *folders, last = part.paths[0].split("/")
        for depth, folder in enumerate(folders):
            above = "/".join(folders[: depth + 1])
            if above not in shown:
                lines.append((f"{'  ' * (depth + 1)}{folder}/", ""))
                shown.add(above)
        indent, end = "  " * (len(folders) + 1), "/" if part.is_folder else ""
        others = [f"or PATH/{other}{end}" for other in part.paths[1:]]
        words = [part.what, *others, *([] if part.required else ["may be missing"])]
        lines.append((f"{indent}{last}{end}", "; ".join(words)))
        if part.inside:
            lines.append((f"{indent}  {part.inside}", "for example"))
    width = max(len(place) for place, _ in lines) + 2
    return "\n".join(["PATH/", *(f"{place.ljust(width)}{words}".rstrip() for place, words in lines)])


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        hint = closest(name, BENCHMARKS) or f"; expected one of: {', '.join(BENCHMARKS)}"
        raise InputError(f"unknown benchmark {name!r}{hint}")
    return BENCHMARKS[name]


def _look_for(part: Part, root: Path) -> FoundPart:
    path = part.find(root)
    if path is None:
        return FoundPart(part, None)
    num_files = sum(len(files) for _, _, files in os.walk(path)) if part.is_folder else None
    return FoundPart(part, path.relative_to(root).as_posix(), num_files)


def _without_positives(class_names: Sequence[str], splits: Sequence[SplitCounts]) -> list[str]:
    notes = []
    for split in splits:
        lacking = [name for name, present in zip(class_names, split.present, strict=True) if not present]
        if lacking:
            notes.append(f"{split.name}: no image shows {', '.join(lacking)}")
    return notes
