"""The plain computation that the text tower's shortcuts are held against: transformers, whole prompts, 77 tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from fedmpt.backbone.text_tower import PromptEmbeddings


class _Given(nn.Module):
    """Token embeddings that were made elsewhere."""

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.embeddings


@contextmanager
def _embeddings(model: CLIPTextModelWithProjection, embeddings: Tensor) -> Iterator[None]:
    old = model.get_input_embeddings()
    model.set_input_embeddings(_Given(embeddings))
    try:
        yield
    finally:
        model.set_input_embeddings(old)


def encode_plainly(model: CLIPTextModelWithProjection, prompts: PromptEmbeddings, *, length: int = 77) -> Tensor:
    """Features [N, C, D] in fp32 from transformers' own forward on N * C prompts, each padded to ``length``."""
    end_token = model.config.eos_token_id
    filler = model.get_input_embeddings().weight[end_token].detach()
    rows, ends = [], []
    for prefix, prefix_length in zip(prompts.prefixes, prompts.prefix_lengths.tolist(), strict=True):
        for suffix, end in zip(prompts.suffixes, prompts.ends.tolist(), strict=True):
            whole = torch.cat([prefix[:prefix_length], suffix[: end + 1]]).to(filler.dtype)
            ends.append(len(whole) - 1)
            rows.append(torch.cat([whole, filler.expand(length - len(whole), -1)]))
    # transformers reads the feature at the first end-of-text token of the ids.
    ids = torch.zeros(len(rows), length, dtype=torch.int64, device=filler.device)
    for row, end in enumerate(ends):
        ids[row, end:] = end_token
    with _embeddings(model, torch.stack(rows)):
        features = model(input_ids=ids).text_embeds.float()
    return features.unflatten(0, (len(prompts.prefixes), len(prompts.suffixes)))
