"""Where classes and their combinations come from: labels of a data set, counts of several sites, or a plain list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fedmpt.conditions.document import listed_texts, read_class_list
from fedmpt.conditions.labels.combinations import (
    Combination,
    combinations_from_classes,
    combinations_from_clients,
    combinations_from_counts,
)
from fedmpt.conditions.labels.counts import Noise, check_alike, read_counts
from fedmpt.data import load_data
from fedmpt.data.partition import partition_split
from fedmpt.types import InputError, check_options

SENT = (
    "the language model gets the names of classes, and by name which of them come together; no numbers, no labels of "
    "single images, no images"
)
REVEALS = (
    "clients tell whoever adds up how many of their images show each class, each pair and some triples, exactly: a "
    "pair counted once says that one image has both; --epsilon adds noise"
)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Classes, and which of their combinations are described."""

    classes: Path | None = None
    """File with a class name a line, or a JSON list. Combinations are then drawn."""
    data: str | None = None
    """Data set, NAME:PATH, as in fedmpt train: combinations come from the labels of its training images."""
    counts: tuple[Path, ...] = ()
    """Files that fedmpt conditions count wrote, one of each site; pairs, but no triples, come from them."""
    budget: int = 400
    """Combinations of classes to describe at most: single ones, frequent and surprising pairs and triples."""
    min_images: int = 5
    """Pairs and triples in fewer images than this are not sent: they might point at single people. Only with --data or
    --counts."""
    epsilon: float | None = None
    """Have each client of --data add noise to its counts, for differential privacy of its images; smaller is more
    private. Without it, whoever adds up the counts sees them exactly."""

    def check(self) -> None:
        """Raises InputError for what can be said before anything is read."""
        given = [f"--{name}" for name in ("classes", "data", "counts") if getattr(self, name)]
        if len(given) != 1:
            raise InputError(
                "give one of --classes FILE, --data NAME:PATH and --counts FILE ...; got "
                f"{' and '.join(given) or 'none'}"
            )
        check_options(self, "[1, inf)", "budget", "min_images")
        if self.epsilon is not None:
            if self.data is None:
                raise InputError("--epsilon is for --data; sites add noise with fedmpt conditions count --epsilon")
            Noise(self.epsilon)


class Source(NamedTuple):
    """Classes and the combinations to describe; ``where`` is for the record, ``notes`` for the user."""

    class_names: tuple[str, ...]
    combinations: tuple[Combination, ...]
    where: str
    notes: tuple[str, ...] = ()


def find_source(options: SourceOptions, budget: int, *, seed: int, cache: Path) -> Source:
    """The source that is given, with at most ``budget`` combinations; an InputError if what is read is wrong."""
    min_images, notes = options.min_images, [SENT]
    if options.classes is not None:
        class_names = read_class_list(options.classes)
        drawn = combinations_from_classes(len(class_names), budget=budget, seed=seed)
        return Source(class_names, drawn, f"the list of classes, drawn evenly with seed {seed}")
    if options.data is not None:
        data = load_data(options.data, cache=cache, progress=True)
        class_names, epsilon = data.class_names, options.epsilon
        clients = [data.train.labels]  # Where the data come from several sites, each counts for itself.
        if data.client_column is not None:
            partition = partition_split(data.train, setting="natural", column=data.client_column)
            clients = [data.train.labels[rows] for rows in partition.rows]
        found = combinations_from_clients(clients, budget=budget, min_images=min_images, epsilon=epsilon)
        whose = f"{len(clients)} clients" if len(clients) > 1 else "one client"
        # With noise, how many images there are is one of the numbers that it hides.
        number, noise = f"{len(data.train)} ", ""
        if epsilon is not None:
            number, noise = "", f", with noise of epsilon {epsilon:g} at each"
        where = f"labels of {number}training images of {data.name}, counted at {whose}{noise}; "
        where += f"at least {min_images} images for a pair or triple"
        notes = [*data.notes, *([REVEALS] if epsilon is None and len(clients) > 1 else []), SENT]
    else:
        sites = [read_counts(path) for path in options.counts]
        check_alike(sites, options.counts)
        class_names = listed_texts(f"{options.counts[0]}: classes", list(sites[0].class_names))
        noises = [site.noise for site in sites if site.noise is not None]
        counts = [site.counts for site in sites]
        found = combinations_from_counts(counts, budget=budget, min_images=min_images, noises=noises)
        whose = "one site" if len(sites) == 1 else f"{len(sites)} sites"
        noise = f", {len(noises)} of them with noise" if noises else ""
        where = f"pairs counted at {whose}{noise}; at least {min_images} images each"
    if all(len(combination.classes) == 1 for combination in found):
        notes.append(
            f"no pair of classes is in {min_images} images, so only single classes are described, which says little of "
            "why classes come together; give a smaller --min-images, a larger --epsilon where there is noise, or "
            "--classes to draw pairs from the list"
        )
    return Source(class_names, found, where, tuple(notes))
