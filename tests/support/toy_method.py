"""A method that can be worked out by hand: a linear layer on the pooled feature, with a tensor that stays home."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedmpt.data.features.store import FeatureSet
from fedmpt.federated.rounds import Progress, Round
from fedmpt.federated.simulate import Simulation
from fedmpt.methods import Method, MethodConfig
from fedmpt.types import Backbone, Batch

CLASSES, WIDTH = 3, 5


@dataclass(frozen=True)
class ToyConfig(MethodConfig):
    """Weights that are shared, and an offset that is personal if asked for."""

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "a linear layer"
    source: ClassVar[str] = "none"

    personal_offset: bool = True
    num_classes: int = CLASSES
    width: int = WIDTH

    def build(self, backbone: Backbone | None, class_names: Sequence[str], *, generator: torch.Generator) -> Toy:
        width = self.width if backbone is None else backbone.text_model.config.projection_dim
        return Toy(len(class_names), width, personal_offset=self.personal_offset, generator=generator)


class Toy(Method):
    """State: ``weight`` [C, D] and ``offset`` [C]. ``seen`` keeps the pooled features of every batch."""

    def __init__(self, num_classes: int, width: int, *, personal_offset: bool, generator: torch.Generator) -> None:
        nn.Module.__init__(self)  # It has no towers.
        self.weight = nn.Parameter(torch.randn(num_classes, width, generator=generator))
        self.offset = nn.Parameter(torch.zeros(num_classes))
        self.personal = frozenset({"offset"} if personal_offset else ())
        self.seen: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def encode_text(self) -> Tensor:
        return self.weight

    def forward(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        self.seen.append(batch.pooled)
        text = self.encode_text() if text is None else text
        return (batch.pooled @ text.T + self.offset).sigmoid()


def toy(*, personal: bool = False, seed: int = 0, num_classes: int = CLASSES, width: int = WIDTH) -> Toy:
    generator = torch.Generator().manual_seed(seed)
    return Toy(num_classes, width, personal_offset=personal, generator=generator)


def run_rounds(
    method: Method, clients: Sequence[FeatureSet], test: FeatureSet, *, start: Progress | None = None, **options: Any
) -> Iterator[Round]:
    return Simulation(method=method, clients=clients, test=test, **options).rounds(start)
