"""RAM (Tan et al. 2025): a local stream beside the image tower, whose patches transport matches to the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from fedmpt.backbone.image_tower import ImageBlock
from fedmpt.backbone.text_tower import DeepTokens
from fedmpt.backbone.views import LocalPatches, TowerTokens, open_tower
from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.heads import SigmoidCalibration
from fedmpt.methods.parts.layers import initialise, scaled_block
from fedmpt.methods.parts.losses import asymmetric_loss, multi_matching_loss
from fedmpt.methods.parts.optimizers import Joined
from fedmpt.methods.parts.prompts import PromptTemplate, hand_written_features, random_context
from fedmpt.methods.parts.transport import check_similarity, patch_marginals, sinkhorn
from fedmpt.types import PRESENT, Backbone, Batch, check_options

BLOCK = 9
"""First touched block of both towers, of 12 blocks."""
PROMPT = "a photo of a"
UP_SCALE = 1e-3
"""Of the adapters' last convolution at the start."""
TEACHER_SCALE = 20.0
"""How sharply the frozen model's shares decide where a class is."""


class RAM(Method):
    """State: ``adapters`` (with running statistics of batch norms) and ``visual_context`` [blocks, b, V] of the last
    image blocks; ``context`` [blocks, b, W] of the last text blocks; ``log_temperatures`` of the global and the local
    logits; the head's calibration."""

    def __init__(
        self, config: RAMConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "[0, inf)", "teacher_weight")
        check_options(config, "(0, inf)", *(field.name for field in fields(config) if field.name != "teacher_weight"))
        self.config = config
        self.image_tower = open_tower(backbone)
        self.template = PromptTemplate(self.tower, class_names, prefix_texts=[PROMPT])
        self.hand_written = hand_written_features(self.tower, class_names, prefix=PROMPT)
        num_image_blocks, num_text_blocks = len(self.image_tower.image_blocks), len(self.tower.layers)
        self.first_image_block = scaled_block(BLOCK, num_image_blocks)
        self.first_text_block = scaled_block(BLOCK, num_text_blocks)
        self.views = {"tokens": TowerTokens(block=self.first_image_block, with_local=True)}
        self.training_views = {"teacher": LocalPatches()}
        self.calibration = SigmoidCalibration()
        # Scores are shares of a softmax: a class that has no more than its even share starts undecided.
        nn.init.constant_(self.calibration.bias, math.log(len(class_names) - 1))
        self._add_trained(num_image_blocks - self.first_image_block, num_text_blocks - self.first_text_block, generator)

    def _add_trained(self, num_image_blocks: int, num_text_blocks: int, generator: torch.Generator) -> None:
        config, width = self.config, self.image_tower.width
        visual = random_context(num_image_blocks, config.num_visual_context, width, generator=generator)
        self.visual_context = nn.Parameter(visual)
        text = random_context(num_text_blocks, config.num_context, self.tower.width, generator=generator)
        self.context = nn.Parameter(text)
        self.adapters = nn.ModuleList(
            LocalAdapter(width, self.tower.joint_width, generator) for _ in range(num_image_blocks)
        )
        # The published code trains the temperatures themselves; logarithms cannot end below zero.
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.log_global_temperature = nn.Parameter(torch.tensor(-math.log(self.logit_scale)))

    def learning_rate_factors(self) -> dict[str, float]:
        config = self.config
        return {
            "adapters.": config.adapter_rate,
            "context": config.prompt_rate,
            "visual_context": config.prompt_rate,
            # A step of AdamW is as large as its rate. This is the published step, as a share of where it starts.
            "log_temperature": 1 / config.temperature,
            "log_global_temperature": self.logit_scale,
            "calibration.": config.calibration_rate,
        }

    def optimizer(self, *, learning_rate: float, momentum: float, weight_decay: float) -> Joined:
        """As published: SGD with ``momentum`` for the prompts, AdamW for all else."""
        names = [name for name, _ in self.named_parameters()]
        groups = dict(zip(names, self._parameter_groups(learning_rate), strict=True))
        prompts = [groups.pop("visual_context"), groups.pop("context")]
        return Joined(
            torch.optim.AdamW(groups.values(), lr=learning_rate, weight_decay=weight_decay),
            torch.optim.SGD(prompts, lr=learning_rate, momentum=momentum, weight_decay=weight_decay),
        )

    def encode_text(self) -> Float[Tensor, "C D"]:
        """Not normalised: adapters have a norm of their own for it."""
        deep = DeepTokens(inserted=dict(enumerate(self.context.split(1), start=self.first_text_block)))
        return self.tower.encode(self.template.embed(), deep)[0]

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        return self.calibrated(self.log_scores(*self.cosines(batch, text)))

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        pooled, patches = self.cosines(batch, self.encode_text() if text is None else text)
        teacher = batch.views["teacher"][:, 0, 1:].to(self.hand_written.dtype)
        frozen = self.logit_scale * F.normalize(teacher, dim=-1) @ self.hand_written.T
        plan = self.plan(
            patches,
            entropy=self.config.training_entropy,
            extra=self.config.teacher_weight * teacher_cost(frozen, batch.labels),
        )
        matching = multi_matching_loss(self.global_logits(pooled), batch.labels, batch.weights)
        local = self.local_logits(patches, plan)
        matching = matching + multi_matching_loss(local, batch.labels, batch.weights)
        # The calibration is ours, so it learns by itself: the paper's loss alone trains all else. It reads scores as
        # of a test, since the plan of training knows the labels.
        with torch.no_grad():
            scores = self.log_scores(pooled, patches)
        return matching + asymmetric_loss(self.calibrated(scores), batch.labels, batch.weights)

    def cosines(self, batch: Batch, text: Float[Tensor, "C D"]) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B M C"]]:
        """Of the normal stream's class token, and of the local stream's patches, with the text."""
        tower = self.image_tower
        tokens, local = batch.views["tokens"].to(tower.dtype).unbind(1)
        contexts = self.visual_context.to(tower.dtype)
        blocks = cast("Sequence[ImageBlock]", tower.image_blocks[self.first_image_block :])
        for block, context, adapter in zip(blocks, contexts, self.adapters, strict=True):
            local = local + block.value_attention(tokens)
            # Prompts are there for one block of the normal stream alone.
            prompted = torch.cat([tokens, context.expand(len(tokens), -1, -1)], dim=1)
            tokens = block(prompted)[:, : tokens.shape[1]]
            local = local + adapter(tokens.float(), text).to(tower.dtype)
        _, pooled = tower.finish(tokens)
        patches, _ = tower.finish(local)
        text = F.normalize(text, dim=-1)
        return F.normalize(pooled, dim=-1) @ text.T, F.normalize(patches, dim=-1) @ text.T

    def plan(
        self, cosines: Float[Tensor, "B M C"], *, entropy: float, extra: Float[Tensor, "B M C"] | float = 0.0
    ) -> Float[Tensor, "B M C"]:
        """Transport between patches and classes at the cost ``1 - share of the class + extra``. No gradient."""
        check_similarity(cosines)
        cosines = cosines.detach()
        num_classes = cosines.shape[-1]
        cost = 1 - (self.logit_scale * cosines).softmax(-1) + extra
        rows = patch_marginals(cosines, temperature=self.config.patch_temperature)
        columns = cosines.new_full((num_classes,), 1 / num_classes)
        return sinkhorn(cost, rows, columns, entropy=entropy)

    def local_logits(self, cosines: Float[Tensor, "B M C"], plan: Float[Tensor, "B M C"]) -> Float[Tensor, "B C"]:
        return (plan * cosines).sum(1) / self.log_temperature.exp()

    def global_logits(self, cosines: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        return cosines / self.log_global_temperature.exp()

    def log_scores(self, pooled: Float[Tensor, "B C"], patches: Float[Tensor, "B M C"]) -> Float[Tensor, "B C"]:
        """Logs of RAM's own scores: the mean of a softmax over classes of the global, and one of the local logits."""
        seen = self.global_logits(pooled).log_softmax(-1)
        matched = self.local_logits(patches, self.plan(patches, entropy=self.config.entropy)).log_softmax(-1)
        return torch.logaddexp(seen, matched) - math.log(2)

    def calibrated(self, log_scores: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Probabilities whose log-odds are those of the scores, scaled and shifted: the order of images stays."""
        # Logits of other methods are standardised over an image's classes; shares of a softmax have their own zero.
        # Not `scaled_log_odds`: the logs keep what is smaller than its 1e-6.
        return self.calibration.scaled(log_scores - (-torch.expm1(log_scores.clamp_max(-1e-6))).log())


@dataclass(frozen=True)
class RAMConfig(MethodConfig):
    """Local adapters and prompts in both towers, transport between patches and classes, and a matching loss."""

    name: ClassVar[str] = "ram"
    summary: ClassVar[str] = "local adapters in the image tower, transport to classes"
    source: ClassVar[str] = "Tan et al. 2025 (RAM), CVPR"
    method: ClassVar = RAM
    revision: ClassVar[int] = 2
    learning_rate: ClassVar[float] = 5e-5
    paper_learning_rate: ClassVar[float] = 5e-5

    num_context: int = 4
    """Learnable tokens in each of the text tower's upper blocks."""
    num_visual_context: int = 8
    """Learnable tokens in each of the image tower's last blocks."""
    entropy: float = 0.1
    """Entropy of the transport in cost units (POT's reg)."""
    training_entropy: float = 0.15
    """The same in training."""
    patch_temperature: float = 0.1
    """How evenly patches share the mass, in cosines; smaller is sharper."""
    teacher_weight: float = 0.05
    """How much training's transport heeds where the frozen model sees the classes that are there."""
    temperature: float = 2e-3
    """Temperature of the local logits before training."""
    adapter_rate: float = 0.1
    """Factor on the learning rate for the adapters."""
    prompt_rate: float = 20.0
    """Factor on the learning rate for the tokens in both towers."""
    calibration_rate: float = 300.0
    """Factor on the learning rate for the calibration's scale and bias."""


def teacher_cost(similarity: Float[Tensor, "B M C"], labels: Int8[Tensor, "B C"]) -> Float[Tensor, "B M C"]:
    """What keeps transport in training to the patches where the frozen model sees a class that is there.

    ``-log F`` with F the softmax over patches of 20 times each patch's share of the class. ``similarity`` is the
    frozen model's, on the logit scale. For classes not known to be there, F is the smallest of the image.
    """
    shares = (TEACHER_SCALE * similarity.softmax(-1)).log_softmax(1)
    # Paper takes the batch's smallest. A class's plan is the same for any constant, and an image's is its own matter.
    lowest = shares.amin((1, 2), keepdim=True)
    return -shares.where((labels == PRESENT)[:, None], lowest)


class LocalAdapter(nn.Module):
    """What is added to the local stream behind a block, from the normal stream's patches and the classes' text (RAM).

    Two branches, 1 x 1 and 3 x 3, each convolution, batch norm, GELU, then cross-attention to the text: queries of
    each branch and the text, which is keys and values, have a layer norm before it. A 3 x 3 convolution of the mean and
    the maximum over the channels of both says how much each branch counts at each patch. Branches are as wide as the
    text features (D).
    """

    def __init__(self, width: int, joint_width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.point = _Branch(width, joint_width, kernel_size=1)
        self.window = _Branch(width, joint_width, kernel_size=3)
        self.text_norm = nn.LayerNorm(joint_width)
        self.gate = nn.Conv2d(2, 2, kernel_size=3, padding=1, bias=False)
        self.up = nn.Conv2d(joint_width, width, kernel_size=1, bias=False)
        initialise(self, generator)
        # Published code starts it as torch does. Almost zero, training starts from CLIP's own local stream, as from
        # zero-shot elsewhere; not quite zero, so that every part gets a gradient in the first step.
        nn.init.normal_(self.up.weight, std=UP_SCALE, generator=generator)

    def forward(self, tokens: Float[Tensor, "B T V"], text: Float[Tensor, "C D"]) -> Float[Tensor, "B T V"]:
        """``tokens`` are the class token and the patches of a square image, row by row; nothing for the class token."""
        side = round((tokens.shape[1] - 1) ** 0.5)
        patches, keys = tokens[:, 1:].mT.unflatten(-1, (side, side)), self.text_norm(text)
        point, window = self.point(patches, keys), self.window(patches, keys)
        both = torch.cat([point, window], dim=1)
        gates = self.gate(torch.stack([both.mean(1), both.amax(1)], dim=1)).sigmoid()
        mixed = self.up(gates[:, :1] * point + gates[:, 1:] * window)
        return F.pad(mixed.flatten(2).mT, (0, 0, 1, 0))


class _Branch(nn.Module):
    def __init__(self, width: int, joint_width: int, *, kernel_size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, joint_width, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(joint_width)
        # A count of batches is no state to be averaged, and with a fixed momentum nothing reads it.
        self.norm.num_batches_tracked = None
        self.query_norm = nn.LayerNorm(joint_width)

    def forward(self, patches: Float[Tensor, "B V H W"], keys: Float[Tensor, "C D"]) -> Float[Tensor, "B D H W"]:
        hidden = F.gelu(self.norm(self.convolution(patches)))
        queries = self.query_norm(hidden.flatten(2).mT)
        return hidden + attended_text(queries, keys).mT.unflatten(-1, hidden.shape[2:])


def attended_text(queries: Float[Tensor, "B M D"], keys: Float[Tensor, "C D"]) -> Float[Tensor, "B M D"]:
    """Attention with the same keys and values, one head, without projections."""
    weights = (queries @ keys.T / keys.shape[-1] ** 0.5).softmax(-1)
    return weights @ keys
