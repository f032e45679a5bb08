"""Messages as bytes: what goes in comes out, and bytes from anybody are refused in words."""

from __future__ import annotations

import itertools
import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load, save

from fedmpt.federated.flare.messages import HEADER, Message, pack, unpack
from fedmpt.types import InputError

WORDS = {"round": 3, "rate": 0.1, "names": ["chair", "dining table"], "none": None, "umlaut": "\u00fc"}


def test_what_goes_in_comes_out() -> None:
    tensors = {
        "half": torch.randn(2, 3).half(),
        "counter": torch.tensor(7),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "empty": torch.zeros(0, 4),
    }
    tensors["shared"] = tensors["transposed"]
    found = unpack(pack(Message("train", WORDS, tensors)), source="site a")
    assert (found.kind, found.words) == ("train", WORDS)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_a_message_is_a_safetensors_file() -> None:
    """So whoever wants to see what leaves a site can look with the library."""
    assert torch.equal(load(pack(Message("score", {}, {"x": torch.ones(2)})))["x"], torch.ones(2))


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


GOOD = pack(Message("train", WORDS, {"x": torch.ones(3)}))
METADATA = {"__metadata__": {"kind": "train", "words": "{}"}}
NO_NUMBERS = {"dtype": "F32", "shape": [0, 2**62, 8], "data_offsets": [0, 0]}
"""None, in a shape whose steps no whole number of PyTorch's can hold."""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        pickle.dumps({"kind": "train"}),
        save({"x": torch.ones(1)}),
        save({"x": torch.ones(1)}, metadata={"kind": "train"}),
        save({}, metadata={"kind": "train", "words": "[1]"}),
        save({}, metadata={"kind": "train", "words": "{"}),
        save({}, metadata={"kind": "train", "words": '{"a": ' + "1" * 5000 + "}"}),
        save({}, metadata={"kind": "train", "words": "[" * 100_000}),
        save({}, metadata={"kind": "train", "words": '{"a": ' + "[" * 200 + "]" * 200 + "}"}),
        with_header(json.dumps({**METADATA, "x": NO_NUMBERS}).encode()),
        GOOD[:-1],
        GOOD[:20],
        GOOD + b"more",
        struct.pack("<Q", 2**63) + b"{}",
        with_header(b"\xff\xfe"),
        with_header(b"[" * 100_000),
        with_header(json.dumps({"__metadata__": {"kind": 3, "words": "{}"}}).encode()),
        with_header(json.dumps({**METADATA, "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()),
        with_header(
            json.dumps({**METADATA, "x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        ),
        with_header(
            json.dumps({**METADATA, "x": {"dtype": "O", "shape": [], "data_offsets": [0, 8]}}).encode(), b"12345678"
        ),
    ],
    ids=itertools.count(),  # Bytes of safetensors differ from process to process in the order of their metadata.
)
def test_bytes_that_are_no_message_are_refused_by_name(content: bytes) -> None:
    with pytest.raises(InputError, match=r"site a sent \d+ bytes that are no message"):
        unpack(content, source="site a")


def test_any_byte_may_be_wrong() -> None:
    """A message with one byte changed is another message or none, but no other failure."""
    good, found, refused = unpack(GOOD, source="site a"), [], []
    for place in range(len(GOOD)):
        broken = bytearray(GOOD)
        broken[place] ^= 0x55
        try:
            found.append(unpack(bytes(broken), source="site a"))
        except InputError as error:
            refused.append(str(error))
    assert all(line.startswith(f"site a sent {len(GOOD)} bytes that are no message") for line in refused)
    assert len(refused) >= HEADER.size
    assert len(found) >= sum(tensor.nbytes for tensor in good.tensors.values()) > 0
    assert all(isinstance(message.words, dict) for message in found)
