"""FedMPT (CVPR 2026, arXiv 2605.28347): condition prompts, condition-guided transport and a gate.

A condition (spatial layout, lighting ...) explains why labels come together. Each has its own prompts and its own
adapter of the patch features; transport decides which patches speak for which class under that condition; a gate
weighs the conditions' predictions.

The equations, numbered as in docs/method.md, and the functions of `FedMPT` that compute them:

(1) ``T_nc``: normalised text feature of "[L^n] CONDITION_n [L] CLASS_c."            `encode_text`
(2) ``z_nm = normalise(x_m + x_m down_n up_n)``, against the text ``s z_nm . T_nc``  `similarities`
(3) ``P_n``: transport at cost ``1 - S_n`` with ``S_nmc = softmax_c(s z_nm . T_nc)`` `plan`
(4) ``P_n(c) = C sum_m P_nmc S_nmc``                                                 `condition_predictions`
(5) ``P'(c) = sum_n g_n P_n(c)`` with ``g = softmax(mean_m x_m down up)``            `mixture`, `gate_weights`
(6) the asymmetric loss on ``P'``                                                    `loss`

Two things are ours, and off in the paper's preset: ``T_nc`` may be trained as it is, without the text tower
(`FedMPTConfig.text`), and a second reading of the image may be averaged with ``P'`` (`FedMPTConfig.csra`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.conditions.record import names_hash, resolved_names
from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.condition_text import ConditionText, Trained
from fedmpt.methods.parts.heads import CSRAReading, adapted_cosines, mean_log_odds, rate_unit, scaled_log_odds
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.methods.parts.transport import check_similarity, patch_marginals, sinkhorn
from fedmpt.types import Backbone, Batch, InputError, check_options

# The five that the paper prints as its example; the shipped set "generic" has the same.
GENERIC_CONDITIONS = ("spatial layout", "object pose", "background", "lighting and weather", "object scale")


class FedMPT(ConditionText):
    """State: that of `ConditionText`; ``adapter_down`` [N, D, r], ``adapter_up`` [N, r, D], ``gate_down`` [D, r],
    ``gate_up`` [r, N], ``scale`` and ``bias`` [C], ``csra.vectors`` [C, D] and the two numbers of ``csra.calibration``.
    Parts switched off have none."""

    def __init__(
        self, config: FedMPTConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        _check(config)
        super().__init__(
            backbone,
            class_names,
            trained=config.text,
            conditions=config.conditions if config.condition_prompts else None,
            num_condition_context=config.num_condition_context,
            num_class_context=config.num_class_context,
            class_context_init=config.class_context_init,
            generator=generator,
        )
        self.config = config
        self.sources = {"conditions": names_hash(config.conditions)}
        self.num_classes = len(class_names)
        num, joint_width = config.num_conditions, self.tower.joint_width
        # The paper leaves the start open. Zero up-projections make training start from zero-shot CLIP.
        if config.adapters:
            down = torch.randn(num, joint_width, config.rank, generator=generator) / joint_width**0.5
            self.adapter_down = nn.Parameter(down)
            self.adapter_up = nn.Parameter(torch.zeros(num, config.rank, joint_width))
        if config.gate and num > 1:
            self.gate_down = nn.Parameter(torch.randn(joint_width, config.rank, generator=generator) / joint_width**0.5)
            self.gate_up = nn.Parameter(torch.zeros(config.rank, num))
        if config.calibration:
            self.scale = nn.Parameter(torch.ones(self.num_classes))
            self.bias = nn.Parameter(torch.zeros(self.num_classes))
        self.hand_written = hand_written_features(self.tower, class_names)
        if config.csra:
            self.csra = CSRAReading(self.hand_written)

    def learning_rate_factors(self) -> dict[str, float]:
        config = self.config
        # The paper has one rate for all. At that of five, a single condition unlearns what the frozen towers know.
        own = config.num_conditions / len(GENERIC_CONDITIONS) if config.scale_rates else 1.0
        unit = rate_unit(self.hand_written, self.logit_scale) if config.model_rates else 1.0
        vectors = unit * config.vector_rate
        return {
            "condition_context": own * config.context_rate,
            "class_context": config.context_rate,
            "vectors": (own if config.condition_prompts else 1.0) * vectors,
            "residual": (own if config.condition_prompts else 1.0) * vectors,
            "csra.vectors": config.csra_rate * vectors,
            "adapter_": own * unit * config.adapter_rate,
            "gate_": config.gate_rate,
            "scale": config.calibration_rate,
            "bias": config.calibration_rate,
        }

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        return self.combined(self.mixture(batch, text), self.csra(batch) if self.config.csra else None)

    def combined(self, mixture: Float[Tensor, "B C"], second: Float[Tensor, "B C"] | None) -> Float[Tensor, "B C"]:
        """Probabilities from `mixture`: calibrated, and the log-odds averaged with those of a second reading."""
        found = mixture
        if self.config.calibration:
            found = scaled_log_odds(mixture, self.scale.to(mixture), self.bias.to(mixture))
        return found if second is None else mean_log_odds(found, second)

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        mixture = self.mixture(batch, text)
        loss = self._asymmetric_loss(mixture, batch)
        if self.config.calibration:
            # Scales and biases learn from their own loss: sent through them, the gradient of all else costs mAP.
            loss = loss + self._asymmetric_loss(scaled_log_odds(mixture.detach(), self.scale, self.bias), batch)
        if self.config.csra:
            loss = loss + self._asymmetric_loss(self.csra(batch), batch)
        return loss

    def mixture(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        """(5) P': the conditions' predictions weighed by the gate, in [0, 1]."""
        text = self.encode_text() if text is None else text
        # The adapters' cosines are the same without; the gate then does not depend on the features' length.
        patches = F.normalize(batch.patches, dim=-1)
        by_condition = self.condition_predictions(self.similarities(patches, text))
        # Weights that sum to one but for rounding can lead a few 1e-7 over it, and scores refuse such probabilities.
        return (self.gate_weights(patches)[..., None] * by_condition).sum(1).clamp_max(1)

    def similarities(self, patches: Float[Tensor, "B M D"], text: Float[Tensor, "#N C D"]) -> Float[Tensor, "B N M C"]:
        """(2) Cosines of adapted patches and prompts on the logit scale. ``patches`` are normalised."""
        if self.config.adapters:
            cosines = adapted_cosines(patches, text, self.adapter_down, self.adapter_up)
        else:
            cosines = torch.einsum("bmd,ncd->bnmc", patches, text)
        # The paper leaves the scale open, here and in the rows' marginal: CLIP's own.
        return self.logit_scale * cosines

    def condition_predictions(self, similarity: Float[Tensor, "B N M C"]) -> Float[Tensor, "B N C"]:
        """(4) P_n(c): the mean share of class c over the patches, weighed by where the plan sends c's mass."""
        return (self.patch_weights(similarity) * similarity.softmax(-1)).sum(2)

    def patch_weights(self, similarity: Float[Tensor, "B N M C"]) -> Float[Tensor, "B N M C"]:
        """How much each patch counts for each class: the plan's columns, each made to sum to one. No gradient."""
        if self.config.transport == "mean":
            return torch.full_like(similarity, 1 / similarity.shape[2], requires_grad=False)
        if self.config.transport == "rows":
            rows = patch_marginals(similarity.detach(), temperature=self.config.patch_temperature)
            return rows[..., None].expand_as(similarity)
        # The paper does not say how psi becomes a probability: over its column's mass it is a mean of shares.
        return self.num_classes * self.plan(similarity)

    def plan(self, similarity: Float[Tensor, "B N M C"]) -> Float[Tensor, "B N M C"]:
        """(3) Transport plans between patches and classes; columns sum to 1 / C. No gradient, as in PLOT and RAM."""
        check_similarity(similarity := similarity.detach())
        return sinkhorn(
            1 - similarity.softmax(-1),
            patch_marginals(similarity, temperature=self.config.patch_temperature),
            torch.full((self.num_classes,), 1 / self.num_classes, device=similarity.device),
            entropy=self.config.entropy,
            max_iterations=self.config.sinkhorn_iterations,
            tolerance=self.config.sinkhorn_tolerance,
        )

    def gate_weights(self, patches: Float[Tensor, "B M D"]) -> Float[Tensor, "B N"]:
        """(5) g: how much each condition counts for each image; rows sum to one."""
        num = self.config.num_conditions
        if not (self.config.gate and num > 1):
            return patches.new_full((len(patches), num), 1 / num)
        # The paper leaves the scale of what the gate reads open; normalised, it is the same for every backbone.
        return (patches.mean(1) @ self.gate_down @ self.gate_up).softmax(-1)

    def _asymmetric_loss(self, probabilities: Float[Tensor, "B C"], batch: Batch) -> Float[Tensor, ""]:
        shape = {name: getattr(self.config, name) for name in ("gamma_positive", "gamma_negative", "margin")}
        return asymmetric_loss(probabilities, batch.labels, batch.weights, **shape)


@dataclass(frozen=True)
class FedMPTConfig(MethodConfig):
    """FedMPT and its parts; each can be switched off."""

    name: ClassVar[str] = "fedmpt"
    summary: ClassVar[str] = "condition prompts, optimal transport to patches, and a gate"
    source: ClassVar[str] = "FedMPT, CVPR 2026, arXiv 2605.28347"
    method: ClassVar = FedMPT
    balanced: ClassVar[bool] = True
    mix: ClassVar[float] = 0.8
    familiar_spread: ClassVar[float | None] = 2.0

    conditions: tuple[str, ...] = GENERIC_CONDITIONS
    """Names of the conditions, the same for all clients; or one word, a shipped set such as generic or a .json file."""
    conditions_hash: str = ""
    """SHA-256 of the names, filled in where a set or file gave them; given by hand, other names are refused."""
    text: Trained = "vectors"
    """What is trained of the text: one vector for each condition and class, started at its prompt's feature, so that
    the text tower runs once; the prompts' tokens, as in the paper; or both, prompts with a vector added to each."""
    condition_prompts: bool = True
    """Prompts of their own for each condition; off: one prompt a class."""
    adapters: bool = True
    """A low-rank adapter of the patch features for each condition."""
    transport: Literal["sinkhorn", "rows", "mean"] = "sinkhorn"
    """How patches are weighed: by a transport plan, by its row marginal alone, or all the same."""
    csra: bool = True
    """Also read each image with the head of CSRA and one more vector for each class; the two log-odds are averaged."""
    gate: bool = True
    """Conditions weighed by the image; off: all the same."""

    num_condition_context: int = 4
    """Learnable tokens before the condition, one set each."""
    num_class_context: int = 4
    """Learnable tokens before the class, one set for all."""
    class_context_init: str = "a photo of a"
    """Words the class context starts from; where too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
    rank: int = 32
    """Rank of adapters and gate."""
    entropy: float = 0.3
    """Entropy of the transport in cost units (POT's reg)."""
    patch_temperature: float = 4.0
    """tau: how evenly patches share the mass; smaller is sharper."""
    sinkhorn_iterations: int = 100
    """Most Sinkhorn iterations."""
    sinkhorn_tolerance: float = 1e-3
    """Largest relative error of a row sum at which Sinkhorn stops."""
    calibration: bool = True
    """Also train a scale and a bias for each class on the log-odds."""

    scale_rates: bool = True
    """Rates of what each condition has of its own are for five conditions and grow with their number: the mean over N
    conditions passes each one N-th of the gradient. --weight-decay and --proximal grow too."""
    model_rates: bool = True
    """Rates of vectors and adapters are in units of the model: its logit scale, and how far texts lie apart."""
    context_rate: float = 1.0
    """Factor on the learning rate for the prompts' tokens."""
    vector_rate: float = 5.0
    """Factor on the learning rate for the vectors."""
    csra_rate: float = 3.0
    """Factor on the vectors' rate for those of the second reading."""
    adapter_rate: float = 50.0
    """Factor on the learning rate for the adapters."""
    gate_rate: float = 30.0
    """Factor on the learning rate for the gate."""
    calibration_rate: float = 30.0
    """Factor on the learning rate for the calibration's scales and biases."""

    gamma_positive: float = 1.0
    """Focusing of the asymmetric loss on present labels."""
    gamma_negative: float = 2.0
    """Focusing of the asymmetric loss on absent labels."""
    margin: float = 0.05
    """Probability below which absent labels cost nothing."""

    def tunable(self) -> Mapping[str, tuple[float, ...]]:
        return {"entropy": (0.2, 0.3, 0.5, 1.0)} if self.transport == "sinkhorn" else {}

    def resolved(self) -> FedMPTConfig:
        """The same with the names of the conditions in place of the set or file that has them. Raises InputError if
        there is no such file, it is wrong, or the names are not those of ``conditions_hash``."""
        names, digest = resolved_names(self.conditions, given_hash=self.conditions_hash)
        return replace(self, conditions=names, conditions_hash=digest)

    @classmethod
    def of_stored(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Runs of before there was a choice had one rate for any number of conditions, and took no name for a set."""
        before: dict[str, Any] = dict.fromkeys(("scale_rates", "model_rates", "csra"), False) | {"text": "prompts"}
        match options:
            case {"conditions": [str(name)]}:
                before["conditions_hash"] = names_hash([name])  # Names of the given hash are taken as they stand.
        return {**before, **options}

    @classmethod
    def paper(cls) -> FedMPTConfig:
        """The paper's values, and zero-initialised residual adapters and a random start where it is silent."""
        return cls(
            text="prompts",
            csra=False,
            entropy=0.2,
            scale_rates=False,
            model_rates=False,
            adapter_rate=1.0,
            gate_rate=1.0,
            class_context_init="",
            calibration=False,
        )

    @property
    def num_conditions(self) -> int:
        """N: one where nothing depends on the condition."""
        return len(self.conditions) if self.condition_prompts or self.adapters else 1


def _check(config: FedMPTConfig) -> None:
    conditions = config.conditions
    if not conditions or len(set(conditions)) != len(conditions) or not all(map(str.strip, conditions)):
        raise InputError(f"--conditions must be at least one, all different and in words, got {conditions!r}")
    check_options(
        config, "(0, inf)", "entropy", "patch_temperature", "rank", "num_class_context", "sinkhorn_iterations"
    )
    rates = [field.name for field in fields(config) if field.name.endswith("_rate")]
    shape = ("num_condition_context", "sinkhorn_tolerance", "gamma_positive", "gamma_negative")
    check_options(config, "[0, inf)", *shape, *rates)
    check_options(config, "[0, 1)", "margin")
