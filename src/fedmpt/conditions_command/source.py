"""Where classes and their combinations come from: labels of a data set, counts of several sites, or a plain list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int8
from torch import Tensor

from fedmpt.conditions.class_list import read_class_list
from fedmpt.conditions.combinations import (
    Combination,
    combinations_from_classes,
    combinations_from_clients,
    combinations_from_counts,
    in_words,
)
from fedmpt.conditions.count_files import check_alike, read_counts
from fedmpt.data import load_data
from fedmpt.data.partition import partition_split
from fedmpt.types import ImageData, InputError

REVEALS = (
    "clients tell whoever adds up how many of their images show each class, each pair and some triples; the pairs and "
    "triples that are chosen go to the language model by name, without numbers. --epsilon adds noise"
)


@dataclass(frozen=True)
class Source:
    """Classes and the combinations to describe; ``where`` is for the record, ``notes`` for the user."""

    class_names: tuple[str, ...]
    combinations: tuple[Combination, ...]
    where: str
    notes: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        return in_words(self.combinations, len(self.class_names))


def find_source(
    *,
    classes: Path | None,
    data: str | None,
    counts: Sequence[Path],
    budget: int,
    min_images: int,
    epsilon: float | None,
    seed: int,
    cache: Path,
) -> Source:
    """The source that is given, which has to be one of three.

    Raises:
        InputError: if none or several are given, an option does not go with it, or what is read is wrong.
    """
    given = [flag for flag, value in (("--classes", classes), ("--data", data), ("--counts", counts)) if value]
    if len(given) != 1:
        raise InputError(
            f"give one of --classes FILE, --data NAME:FOLDER and --counts FILE ...; got {' and '.join(given) or 'none'}"
        )
    if epsilon is not None and data is None:
        counted = "; sites add it with fedmpt conditions count --epsilon" if counts else ""
        raise InputError(f"--epsilon is noise on the labels of --data, which is not given{counted}")
    if classes is not None:
        return _from_list(read_class_list(classes), budget=budget, seed=seed)
    if data is not None:
        loaded = load_data(data, cache=cache, progress=True)
        return _from_data(loaded, budget=budget, min_images=min_images, epsilon=epsilon)
    return _from_counts(counts, budget=budget, min_images=min_images)


def clients_of(data: ImageData) -> list[Int8[Tensor, "_ C"]]:
    """The training labels of each site, where the data come from several; else of all images as one client."""
    labels = data.train.labels
    if data.client_column is None:
        return [labels]
    partition = partition_split(data.train, setting="natural", column=data.client_column)
    return [labels[rows] for rows in partition.rows]


def _from_list(class_names: tuple[str, ...], *, budget: int, seed: int) -> Source:
    found = combinations_from_classes(len(class_names), budget=budget, seed=seed)
    return Source(class_names, found, f"the list of classes, drawn evenly with seed {seed}")


def _from_data(data: ImageData, *, budget: int, min_images: int, epsilon: float | None) -> Source:
    clients = clients_of(data)
    found = combinations_from_clients(clients, budget=budget, min_images=min_images, epsilon=epsilon)
    whose = f"{len(clients)} clients" if len(clients) > 1 else "one client"
    noise = "" if epsilon is None else f", with noise of epsilon {epsilon:g} at each"
    where = f"labels of {len(data.train)} training images of {data.name}, counted at {whose}{noise}"
    notes = (REVEALS,) if epsilon is None and len(clients) > 1 else ()
    return Source(data.class_names, found, f"{where}; at least {min_images} images for a pair or triple", notes)


def _from_counts(paths: Sequence[Path], *, budget: int, min_images: int) -> Source:
    sites = [read_counts(path) for path in paths]
    check_alike(sites, paths)
    noises = [site.noise for site in sites if site.noise is not None]
    found = combinations_from_counts(
        [site.counts for site in sites], budget=budget, min_images=min_images, noises=noises
    )
    where = f"pairs counted at {len(sites)} sites, {len(noises)} of them with noise; at least {min_images} images each"
    return Source(sites[0].class_names, found, where)
