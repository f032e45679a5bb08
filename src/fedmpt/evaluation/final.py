"""A trained model as it predicts in the end. Runs, commands and pages get probabilities from here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import Calibration, calibrate, score_histograms
from fedmpt.evaluation.metrics import METRICS, Scores, multilabel_scores
from fedmpt.evaluation.scoring import probabilities, set_global
from fedmpt.evaluation.soft_ties import soft_ties
from fedmpt.methods import Method
from fedmpt.state import check_state, get_state, mix_states, set_state
from fedmpt.types import Batch, State, check_options


@dataclass(frozen=True)
class Prediction:
    """How predictions are made of what was trained, for every method. Training itself does not depend on it."""

    mix: float = 1.0
    """M in (0, 1]: the trained tensors count M and those from which training started 1 - M (WiSE-FT); 1 is as trained,
    for example --mix 0.7."""
    soft_ties: float = 0.0
    """g, 0 or more: how strongly a class in doubt is held back where classes that come with it in training are likely,
    by the summed counts of the clients' labels; 0 is not at all, for example --soft-ties 1."""

    def check(self) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        check_options(self, "(0, 1]", "mix")
        check_options(self, "[0, inf)", "soft_ties")


@dataclass(frozen=True)
class FinalModel:
    """The global model as it predicts: a round's state mixed with the start, and soft ties on what it says.

    ``method`` is that global model. ``shared`` are its mixed tensors, ``personal`` those of clients by their numbers,
    and ``initial`` the personal tensors as the method was built. ``ties`` may be None where ``strength`` is 0.
    """

    method: Method
    shared: State
    personal: Mapping[int, State]
    initial: State
    ties: Ties | None = None
    strength: float = 0.0

    @classmethod
    def of(
        cls,
        method: Method,
        start: State,
        shared: State,
        personal: Mapping[int, State],
        *,
        options: Prediction,
        ties: Ties | None,
        source: str,
    ) -> FinalModel:
        """Make ``method`` the global model. ``start`` is its full state as it was built, ``shared`` the server's state.

        Personal tensors are not mixed.

        Raises:
            InputError: if the server's state does not fit the method, naming ``source``.
        """
        assert ties is not None or options.soft_ties == 0
        started, initial = method.split(start)
        check_state(shared, like=started, source=source)
        mixed = mix_states(shared, started, options.mix)
        set_global(method, mixed, initial=initial, source=source)
        return cls(method, mixed, personal, initial, ties, options.soft_ties)

    @torch.no_grad()
    def __call__(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        """Probabilities in [0, 1] on the CPU; ``text`` is the method's `encode_text`, computed when not given."""
        return self._final(self.method(batch, text).cpu())

    def probabilities(self, features: FeatureSet) -> Float[Tensor, "images C"]:
        """The same for all images of a set, in its order."""
        return self._final(probabilities(self.method, features))

    def _final(self, found: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        return found if self.ties is None else soft_ties(found, self.ties, self.strength)

    def calibration(self, train: FeatureSet) -> Calibration:
        """Thresholds, scale and bias by the score histograms of all clients' images ``train``.

        The clients' histograms add up to that of all images. Counted at once, text features are computed once.
        """
        return calibrate([score_histograms(self.probabilities(train), train.labels)])

    def personal_scores(self, client_names: Sequence[str], test: FeatureSet) -> dict[str, Any]:
        """Scores of the clients' own models on the test set at threshold 0.5: each client's, and their mean over
        clients.

        A client that never took part has the ``initial`` personal tensors. Every model is scored by itself, so memory
        does not grow with the clients. The method is left as it was.

        Raises:
            InputError: if a client's tensors do not fit the method, naming the client.
        """
        before = get_state(self.method)

        def scored(own: State, name: str) -> Scores:
            set_state(self.method, {**self.shared, **own}, source=f"personal tensors of {name}")
            return multilabel_scores(self.probabilities(test), test.labels)

        newcomer = scored(self.initial, "a new client") if len(self.personal) < len(client_names) else None
        rows = []
        for client, name in enumerate(client_names):
            found = scored(self.personal[client], name) if client in self.personal else newcomer
            rows.append({metric: getattr(found, metric) for metric in METRICS})
        set_state(self.method, before)
        means = {metric: fmean(row[metric] for row in rows) for metric in METRICS}
        return {**means, "clients": [{"name": name, **row} for name, row in zip(client_names, rows, strict=True)]}
