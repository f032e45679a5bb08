"""Messages between a coordinator and a site as bytes: safetensors, of which nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from fedmpt.types import InputError, State

KIND, WORDS = "kind", "words"


@dataclass(frozen=True)
class Message:
    """What is asked or answered: ``kind`` says what, ``words`` are JSON, ``tensors`` go by name."""

    kind: str
    words: Mapping[str, Any] = field(default_factory=dict)
    tensors: State = field(default_factory=dict)


def pack(message: Message) -> bytes:
    """The message as a safetensors file with kind and words in its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in message.tensors.items()}
    words = json.dumps(dict(message.words), allow_nan=False, separators=(",", ":"))
    return save(tensors, metadata={KIND: message.kind, WORDS: words})


def unpack(content: bytes, *, source: str) -> Message:
    """The inverse of `pack`. Raises InputError naming ``source`` for anything else."""
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        words = json.loads(metadata[WORDS])
        if not isinstance(words, dict):
            raise ValueError("its words are no names and values")
        return Message(metadata[KIND], words, load(content))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{source} sent {len(content)} bytes that are no message ({error!r})") from error
