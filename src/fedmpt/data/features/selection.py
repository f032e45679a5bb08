"""Features of images that lie in several stores, read as if they lay in one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from fedmpt.data.features.files import Skipped, Store, StoreFacts
from fedmpt.types import Split


@dataclass(frozen=True, eq=False)
class Selection:
    """Some rows of ``stores``, which count on from one to the next; ``facts`` describe the selection."""

    facts: StoreFacts
    stores: tuple[Store, ...]
    rows: Int64[np.ndarray, "rows"]

    def read(self, rows: Int64[np.ndarray, "B"]) -> tuple[Shaped[Tensor, "B M D"], Shaped[Tensor, "B D"]]:
        """Patch and pooled features of some rows, as `Store.read` gives them."""
        wanted, first = self.rows[rows], 0
        places, pieces = [], []
        for store in self.stores:
            place = np.flatnonzero((wanted >= first) & (wanted < first + store.facts.rows))
            pieces.append(store.read(wanted[place] - first))
            places.append(place)
            first += store.facts.rows
        order = torch.from_numpy(np.concatenate(places)).argsort()
        patches, pooled = (torch.cat(parts)[order] for parts in zip(*pieces, strict=True))
        return patches, pooled


def parts_of(split: Split) -> tuple[Split, ...]:
    """The splits for which features are stored: those of the pool that have any of the images, or the split itself."""
    files = set(split.files)
    return tuple(part for part in split.pool if not files.isdisjoint(part.files)) or (split,)


def select(stores: Sequence[Store], parts: Sequence[Split], split: Split) -> Store | Selection:
    """The images of ``split`` in the ``stores`` of its ``parts``; skipped images keep their reason."""
    if parts[0] is split:
        return stores[0]
    firsts = list(accumulate((store.facts.rows for store in stores), initial=0))
    place: dict[Path, int] = {}
    skipped: dict[int, Skipped] = {}
    for store, part, first in zip(stores, parts, firsts, strict=False):
        place |= {file: first + row for row, file in enumerate(part.files)}
        skipped |= {first + entry["row"]: entry for entry in store.facts.skipped}
    rows = [place[file] for file in split.files]
    found = [{**skipped[row], "row": number} for number, row in enumerate(rows) if row in skipped]
    array = np.array(rows, dtype=np.int64)
    key = hashlib.sha256("".join(store.facts.key for store in stores).encode() + array.tobytes()).hexdigest()
    facts = replace(stores[0].facts, key=key, rows=len(rows), skipped=tuple(found))
    return Selection(facts, tuple(stores), array)
