"""Randomness derived from identity: who draws, for what, in which round.

Client order, restarts and drivers cannot change a result, because nothing shares a stream.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, *identity: int) -> torch.Generator:
    """A CPU generator fixed by ``seed``, ``purpose`` (``"shuffle"``, ``"cohort"`` ...) and e.g. (round, client)."""
    words = "/".join([str(seed), purpose, *map(str, identity)])
    digest = hashlib.sha256(words.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") % 2**63)
