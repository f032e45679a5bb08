"""Where classes and their combinations come from: labels of a data set, counts of several sites, or a plain list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int8
from torch import Tensor

from fedmpt.conditions.document import read_class_list
from fedmpt.conditions.labels.combinations import (
    Combination,
    combinations_from_classes,
    combinations_from_clients,
    combinations_from_counts,
    in_words,
)
from fedmpt.conditions.labels.counts import Noise, check_alike, read_counts
from fedmpt.data import load_data
from fedmpt.data.partition import partition_split
from fedmpt.types import ImageData, InputError

SENT = (
    "the language model gets the names of classes, and by name which of them come together; no numbers, no labels of "
    "single images, no images"
)
REVEALS = (
    "clients tell whoever adds up how many of their images show each class, each pair and some triples, exactly: a "
    "pair counted once says that one image has both; --epsilon adds noise"
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


def check_source(
    *,
    classes: Path | None,
    data: str | None,
    counts: Sequence[Path],
    budget: int,
    min_images: int,
    epsilon: float | None,
) -> None:
    """What can be said of the options before anything is read.

    Raises:
        InputError: unless just one of the first three is given, or if an option does not go with it or cannot be.
    """
    given = [flag for flag, value in (("--classes", classes), ("--data", data), ("--counts", counts)) if value]
    if len(given) != 1:
        raise InputError(
            f"give one of --classes FILE, --data NAME:PATH and --counts FILE ...; got {' and '.join(given) or 'none'}"
        )
    for flag, number in (("--budget", budget), ("--min-images", min_images)):
        if number < 1:
            raise InputError(f"{flag} must be 1 or more, got {number}")
    if epsilon is not None:
        if data is None:
            counted = "; sites add it with fedmpt conditions count --epsilon" if counts else ""
            raise InputError(f"--epsilon is noise on the labels of --data, which is not given{counted}")
        Noise(epsilon)


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
    """The source that is given, by options that `check_source` found right.

    Raises:
        InputError: if what is read is wrong.
    """
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
    # With noise, how many images there are is one of the numbers that it hides.
    number, noise = f"{len(data.train)} ", ""
    if epsilon is not None:
        number, noise = "", f", with noise of epsilon {epsilon:g} at each"
    where = (
        f"labels of {number}training images of {data.name}, counted at {whose}{noise}; at least {min_images} images "
        "for a pair or triple"
    )
    reveals = [REVEALS] if epsilon is None and len(clients) > 1 else []
    notes = (*data.notes, *reveals, SENT, *_of_pairs(found, min_images, has_noise=epsilon is not None))
    return Source(data.class_names, found, where, notes)


def _from_counts(paths: Sequence[Path], *, budget: int, min_images: int) -> Source:
    sites = [read_counts(path) for path in paths]
    check_alike(sites, paths)
    noises = [site.noise for site in sites if site.noise is not None]
    found = combinations_from_counts(
        [site.counts for site in sites], budget=budget, min_images=min_images, noises=noises
    )
    counted = "one site" if len(sites) == 1 else f"{len(sites)} sites"
    noisy = f", {len(noises)} of them with noise" if noises else ""
    where = f"pairs counted at {counted}{noisy}; at least {min_images} images each"
    notes = (SENT, *_of_pairs(found, min_images, has_noise=bool(noises)))
    return Source(sites[0].class_names, found, where, notes)


def _of_pairs(found: Sequence[Combination], min_images: int, *, has_noise: bool) -> tuple[str, ...]:
    """A note where single classes are all there is."""
    if any(len(combination.classes) > 1 for combination in found):
        return ()
    more = ", and as many more as noise may make up" if has_noise else ""
    weaker = ", a larger epsilon" if has_noise else ""
    return (
        f"no pair of classes is in {min_images} images{more}, so only single classes are described, which says little "
        f"of why classes come together; give a smaller --min-images{weaker}, or --classes to draw pairs from the list",
    )
