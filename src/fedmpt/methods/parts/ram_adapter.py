"""The adapter of RAM's local stream: convolutions over an image's patches, with text mixed in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.parts.initialise import initialise

UP_SCALE = 1e-3


class LocalAdapter(nn.Module):
    """What is added to the local stream behind a block, from the normal stream's patches and the classes' text (RAM).

    Two branches, 1 x 1 and 3 x 3, each convolution, batch norm, GELU, then cross-attention to the text. A 3 x 3
    convolution of the mean and the maximum over the channels of both says how much each branch counts at each patch.
    Branches are as wide as the text features (D), since these are keys and values of queries from the branch.
    """

    def __init__(self, width: int, joint_width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.point = _Branch(width, joint_width, kernel_size=1)
        self.window = _Branch(width, joint_width, kernel_size=3)
        self.gate = nn.Conv2d(2, 2, kernel_size=3, padding=1, bias=False)
        self.up = nn.Conv2d(joint_width, width, kernel_size=1, bias=False)
        initialise(self, generator)
        # Paper leaves the start open. Almost zero, training starts from CLIP's own local stream, as from zero-shot
        # elsewhere; not quite zero, so that every part gets a gradient in the first step.
        nn.init.normal_(self.up.weight, std=UP_SCALE, generator=generator)

    def forward(self, tokens: Float[Tensor, "B T V"], text: Float[Tensor, "C D"]) -> Float[Tensor, "B T V"]:
        """``tokens`` are the class token and the patches of a square image, row by row; nothing for the class token."""
        side = round((tokens.shape[1] - 1) ** 0.5)
        patches = tokens[:, 1:].mT.unflatten(-1, (side, side))
        point, window = self.point(patches, text), self.window(patches, text)
        both = torch.cat([point, window], dim=1)
        gates = self.gate(torch.stack([both.mean(1), both.amax(1)], dim=1)).sigmoid()
        mixed = self.up(gates[:, :1] * point + gates[:, 1:] * window)
        return F.pad(mixed.flatten(2).mT, (0, 0, 1, 0))


class _Branch(nn.Module):
    def __init__(self, width: int, joint_width: int, *, kernel_size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, joint_width, kernel_size, padding=kernel_size // 2)
        self.norm = nn.BatchNorm2d(joint_width)
        # A count of batches is no state to be averaged, and with a fixed momentum nothing reads it.
        self.norm.num_batches_tracked = None

    def forward(self, patches: Float[Tensor, "B V H W"], text: Float[Tensor, "C D"]) -> Float[Tensor, "B D H W"]:
        hidden = F.gelu(self.norm(self.convolution(patches)))
        return hidden + attended_text(hidden.flatten(2).mT, text).mT.unflatten(-1, hidden.shape[2:])


def attended_text(queries: Float[Tensor, "B M D"], text: Float[Tensor, "C D"]) -> Float[Tensor, "B M D"]:
    """Attention with text features as both keys and values, one head, without projections."""
    weights = (queries @ text.T / text.shape[-1] ** 0.5).softmax(-1)
    return weights @ text
