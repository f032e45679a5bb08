"""What travels between coordinator and sites: a kind, words and tensors, as the bytes of a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from fedmpt.types import InputError, State

METADATA = "__metadata__"
"""The key of a safetensors header that is no tensor."""
MAX_DEPTH = 20
"""Levels of words within words, more than a message of ours has. Of thousands, who walks through them would fail."""
HEADER = struct.Struct("<Q")


@dataclass(frozen=True)
class Message:
    """``words`` are JSON: an object of strings, numbers, lists and the like."""

    kind: str
    words: Mapping[str, Any] = field(default_factory=dict)
    tensors: State = field(default_factory=dict)


def pack(message: Message) -> bytes:
    assert METADATA not in message.tensors
    # Tensors that share memory are no safetensors file.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in message.tensors.items()}
    return save(tensors, metadata={"kind": message.kind, "words": json.dumps(dict(message.words))})


def unpack(content: bytes, *, source: str) -> Message:
    """The inverse of `pack`, for bytes from anybody. Nothing is unpickled.

    Raises:
        InputError: naming ``source``, if it is no such message. What kind, words and tensors mean is not looked at.
    """
    try:
        (length,) = HEADER.unpack_from(content)
        metadata = json.loads(content[HEADER.size : HEADER.size + length])[METADATA]
        kind, words = metadata["kind"], json.loads(metadata["words"])
        if not (isinstance(kind, str) and isinstance(words, dict) and _is_shallow(words)):
            raise TypeError("kind or words are something else")
        return Message(kind, words, load(content))
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{source} sent {len(content)} bytes that are no message of fedmpt ({error})") from error


def _is_shallow(words: Any, most: int = MAX_DEPTH) -> bool:
    parts = words.values() if isinstance(words, dict) else words if isinstance(words, list) else ()
    return most > 0 and all(_is_shallow(part, most - 1) for part in parts)
