"""What every method is: a frozen config that builds one module, and the hooks in which methods may differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.text_tower import TextTower
from fedmpt.backbone.views import ImageView
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.methods.parts.optimizers import Joined
from fedmpt.state import Update, Weighting, mean_state
from fedmpt.types import Backbone, Batch, InputError, State

NOTHING: Mapping[str, Any] = MappingProxyType({})
"""A default that all methods share, so nobody may add to it."""


@dataclass(frozen=True)
class MethodConfig:
    """Options of a method; every one is a flag of ``fedmpt train``."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    method: ClassVar[Callable[..., Method]]
    """Its class, which takes the config and what `build` takes."""
    learning_rate: ClassVar[float] = 0.05
    """Where ``--learning-rate`` starts from: what measured best of a few."""
    paper_learning_rate: ClassVar[float] = 0.001
    """The same with ``--preset paper``: FedMPT's comparison has one rate for all; others only where it cannot do."""
    revision: ClassVar[int] = 1
    """Goes up where the same tensors mean something else than before, so that a checkpoint of before is noticed."""
    mix: ClassVar[float] = 1.0
    """Where ``--mix`` starts from; 1 with ``--preset paper``."""
    balanced: ClassVar[bool] = False
    """Where ``--balance`` starts from; off with ``--preset paper``."""
    familiar_spread: ClassVar[float | None] = None
    """How far similarities of patches and classes spread on the models that the defaults were tuned on, see
    `fedmpt.runs.familiar`; None where the defaults suit any model, or no one looked."""

    @classmethod
    def paper(cls) -> MethodConfig:
        """The published values, where they differ from the defaults."""
        return cls()

    def tunable(self) -> Mapping[str, tuple[float, ...]]:
        """Values that ``fedmpt tune`` tries of the method's own options, by the option's name."""
        return {}

    def resolved(self) -> MethodConfig:
        """The same config with what its options name in files read into it, so that what is stored needs no file.
        Raises InputError if such a file is missing or wrong."""
        return self

    @classmethod
    def of_stored(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options as a run stored them, with those that it had no choice of as it had them.

        Only needed where an option that came later has a default that is not what runs of before did. ``options`` are
        not checked yet.
        """
        return options

    def build(self, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator) -> Method:
        """The method's module, initialised by ``generator``, on the text tower's device."""
        built = self.method(self.resolved(), backbone, class_names, generator=generator)
        return built.to(built.device)


class Method(nn.Module, ABC):
    """A way to turn frozen features into class probabilities, with few trained tensors.

    ``state_dict()`` holds what is trained and nothing else: frozen towers are kept as plain attributes. All hooks but
    `encode_text` and `forward` have defaults.
    """

    personal: frozenset[str] = frozenset()
    """Names of state tensors that stay with their client."""

    weighting: Weighting = "uniform"
    """How clients count in the mean unless ``--weighting`` says."""

    takes_new_classes: bool = True
    """Whether it can score classes that training never saw."""

    sources: Mapping[str, str] = NOTHING
    """Texts it depends on beside class names, such as a file's, as SHA-256 of each by name: a checkpoint keeps them and
    notices changes."""

    views: Mapping[str, ImageView] = NOTHING
    """What it reads of an image beside the frozen features, by the name under which ``batch.views`` has it."""
    training_views: Mapping[str, ImageView] = NOTHING
    """The same for what only `loss` reads."""

    def __init__(self, backbone: Backbone, class_names: Sequence[str]) -> None:
        """``tower`` is the frozen text tower, ``logit_scale`` the factor on cosines; neither is part of the state.
        Raises InputError if there are fewer than two classes: all our methods compare classes within an image."""
        super().__init__()
        if len(class_names) < 2:
            raise InputError(f"{type(self).__name__} compares classes and got {len(class_names)}; give at least two")
        self.tower = TextTower(backbone)
        self.logit_scale = backbone.logit_scale
        self.draws = torch.Generator()
        """For what training draws. The client gives a new one before each round, by (seed, round, client) alone."""

    @abstractmethod
    def encode_text(self) -> Tensor:
        """What depends on the parameters alone: computed once per step, and once per evaluation."""

    @abstractmethod
    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        """Probabilities in [0, 1]; ``text`` is `encode_text`'s result, computed when not given."""

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        """What local training minimises; ``text`` as in `forward`. Labels count by ``batch.weights``."""
        return asymmetric_loss(self(batch, text), batch.labels, batch.weights)

    def start_round(self, round_index: int) -> None:
        """Told by the client before its local training; rounds count from 1."""

    def neutral_personal(self, shared: State, initial: State) -> State:
        """The personal tensors with which the global model is scored: those that a new client starts from.

        ``shared`` is the server's state, ``initial`` the personal tensors as `MethodConfig.build` made them.
        """
        return initial

    def learning_rate_factors(self) -> dict[str, float]:
        """Factors on the learning rate for parameters whose names start so; 1 for all others."""
        return {}

    def optimizer(
        self, *, learning_rate: float, momentum: float, weight_decay: float
    ) -> torch.optim.Optimizer | Joined:
        """A fresh optimiser for one client's local training."""
        groups = self._parameter_groups(learning_rate)
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)

    def _parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The parameters, one a group, each with its own rate."""
        factors = self.learning_rate_factors().items()

        def rate(name: str) -> float:
            return learning_rate * next((factor for prefix, factor in factors if name.startswith(prefix)), 1.0)

        return [{"params": [parameter], "lr": rate(name)} for name, parameter in self.named_parameters()]

    def aggregate(
        self, previous: State, updates: Iterable[Update], *, weighting: Weighting, memory: State
    ) -> tuple[State, State]:
        """The server's next state from those of this round's clients, in the order of their numbers.

        ``memory`` is the second result of the round before, empty in the first: what the server itself learns.
        """
        return mean_state(updates, weighting=weighting), {}

    def split(self, state: State) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A full state as what is shared and what is personal."""
        shared = {name: tensor for name, tensor in state.items() if name not in self.personal}
        return shared, {name: state[name] for name in self.personal}

    @property
    def device(self) -> torch.device:
        """Where batches have to be."""
        return self.tower.device

    @property
    def is_trained(self) -> bool:
        """Whether there is anything to train: zero-shot has nothing."""
        return any(True for _ in self.parameters())
