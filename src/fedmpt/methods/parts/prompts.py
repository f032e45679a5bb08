"""Prompts with learnable tokens: ``[SOS] [context] [condition] [context] [class] [.] [EOT]``.

A prompt is a prefix, which all classes share, and a suffix, which all conditions share. Conditions and classes may
be several BPE tokens long, each of another length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedmpt.backbone.text_tower import PromptEmbeddings, TextTower
from fedmpt.types import InputError, Tokenizer


class PromptTemplate:
    """The fixed tokens of all prompts, embedded once, with room for learnable ones.

    ``prefix_texts`` are N texts that follow the prefix context (FedMPT's conditions; ``"a photo of a"`` for a
    hand-written prompt; ``""`` for none). The prefix context stands after [SOS], one set a prefix; the suffix context
    before the class name, shared by all prompts.

    Raises:
        InputError: if a prompt is longer than the tower takes, or a class name is empty.
    """

    def __init__(
        self,
        tower: TextTower,
        class_names: Sequence[str],
        *,
        prefix_texts: Sequence[str] = ("",),
        num_prefix_context: int = 0,
        num_suffix_context: int = 0,
    ) -> None:
        tokenizer = tower.tokenizer
        prefixes = [token_ids(tokenizer, text) for text in prefix_texts]
        suffixes = [_class_ids(tokenizer, name) for name in class_names]
        prefix, prefix_text = max(zip(prefixes, prefix_texts, strict=True), key=lambda pair: len(pair[0]))
        suffix, name = max(zip(suffixes, class_names, strict=True), key=lambda pair: len(pair[0]))
        self._max_length = 1 + num_prefix_context + len(prefix) + num_suffix_context + len(suffix)
        if self._max_length > tower.max_length:
            raise InputError(
                f"the prompt for condition {prefix_text!r} and class {name!r} has {self._max_length} tokens, the text "
                f"tower takes {tower.max_length}; shorten a name or use fewer context tokens"
            )
        device = tower.device
        self._start = tower.embed_tokens(torch.tensor([tokenizer.bos_token_id]))
        self._prefix_rest = tower.embed_tokens(_padded(prefixes, tokenizer.eos_token_id))
        self._suffix_rest = tower.embed_tokens(_padded(suffixes, tokenizer.eos_token_id))
        self._prefix_lengths = torch.tensor([1 + num_prefix_context + len(ids) for ids in prefixes], device=device)
        self._ends = torch.tensor([num_suffix_context + len(ids) - 1 for ids in suffixes], device=device)

    def embed(
        self,
        prefix_context: Float[Tensor, "N b_prefix W"] | None = None,
        suffix_context: Float[Tensor, "b_suffix W"] | None = None,
    ) -> PromptEmbeddings:
        """Put the learnable tokens into their places."""
        num_prefixes, num_classes = len(self._prefix_lengths), len(self._ends)
        start = self._start.expand(num_prefixes, 1, -1)
        prefix = [start, self._prefix_rest]
        suffix = [self._suffix_rest]
        if prefix_context is not None:
            prefix.insert(1, prefix_context)
        if suffix_context is not None:
            suffix.insert(0, suffix_context.expand(num_classes, -1, -1))
        return PromptEmbeddings(
            torch.cat(prefix, 1), self._prefix_lengths, torch.cat(suffix, 1), self._ends, self._max_length
        )


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """BPE tokens of a text, without start and end."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def context_from(
    tower: TextTower, phrase: str, num_tokens: int, *, generator: torch.Generator
) -> Float[Tensor, "num_tokens W"]:
    """Context tokens that start as the last words of a phrase, next to the class name, and random in front of them.

    An empty phrase gives random ones only.
    """
    ids = token_ids(tower.tokenizer, phrase)[-num_tokens:]
    drawn = random_context(num_tokens - len(ids), tower.width, generator=generator).to(tower.device)
    return torch.cat([drawn, tower.embed_tokens(torch.tensor(ids, dtype=torch.int64))])


@torch.no_grad()
def hand_written_features(
    tower: TextTower, class_names: Sequence[str], *, prefix: str = "a photo of a"
) -> Float[Tensor, "C D"]:
    """Normalised frozen features of the prompts ``"PREFIX CLASS."``; an empty prefix gives bare class names. Raises
    InputError as `PromptTemplate`."""
    template = PromptTemplate(tower, class_names, prefix_texts=[prefix])
    return F.normalize(tower.encode(template.embed())[0], dim=-1)


def random_context(*shape: int, generator: torch.Generator) -> Float[Tensor, "..."]:
    """Context tokens drawn from N(0, 0.02^2), as in CoOp and the paper."""
    return torch.randn(*shape, generator=generator) * 0.02


def _class_ids(tokenizer: Tokenizer, name: str) -> list[int]:
    ids = token_ids(tokenizer, name)
    if not ids:
        raise InputError(f"class name {name!r} has no tokens; give every class a name in words")
    return [*ids, *token_ids(tokenizer, "."), tokenizer.eos_token_id]


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Int64[Tensor, "rows longest"]:
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=filler)
