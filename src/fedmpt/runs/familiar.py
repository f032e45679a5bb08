"""A note where a method's defaults meet a model that is far from those on which they were tuned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared

NUM_IMAGES = 64
FACTOR = 2.0
"""A spread within this factor of the familiar one, up or down, is familiar."""


def unfamiliar(config: RunConfig, prepared: Prepared) -> list[str]:
    """A note naming the model, or none: where its similarities spread as on the models of the defaults, or the learning
    rate or an option that ``fedmpt tune`` tries is not the default.

    Up to `NUM_IMAGES` training images are looked at, evenly chosen.
    """
    method, familiar = config.method, config.method.familiar_spread
    defaults = type(method)()
    is_chosen = config.federation.learning_rate != method.learning_rate or any(
        getattr(method, name) != getattr(defaults, name) for name in defaults.tunable()
    )
    if familiar is None or is_chosen:
        return []
    num = len(prepared.train)
    rows = torch.linspace(0, num - 1, min(num, NUM_IMAGES)).long()
    batch = prepared.train.with_views(()).batch(rows, device=prepared.method.device)
    text = hand_written_features(prepared.method.tower, prepared.data.class_names)
    spread = similarity_spread(batch.patches, text, prepared.backbone.logit_scale)
    if familiar / FACTOR <= spread <= familiar * FACTOR:
        return []
    return [
        f"{prepared.backbone.name}: its similarities of patches and classes spread by {spread:.2f}, and the defaults "
        f"of {method.name} are for about {familiar:g}; find options on your own training images with fedmpt tune"
    ]


@torch.no_grad()
def similarity_spread(patches: Float[Tensor, "B M D"], text: Float[Tensor, "C D"], logit_scale: float) -> float:
    """Standard deviation over classes of ``logit_scale * cos(patch, text)``, mean over patches and images.

    ``text`` is normalised, ``patches`` need not be.
    """
    return (logit_scale * F.normalize(patches, dim=-1) @ text.T).std(-1, correction=0).mean().item()
