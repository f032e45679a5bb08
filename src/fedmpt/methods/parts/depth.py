"""Where in a tower a method acts, for towers that are not as deep as the published ones."""

from __future__ import annotations

PUBLISHED_DEPTH = 12
"""Blocks of both towers of ViT-B/16, for which papers give their numbers."""


def scaled_block(block: int, depth: int) -> int:
    """Block ``block`` of a tower of 12, in one of ``depth`` blocks: as far into it, rounded.

    Blocks count from 0; 12 stands for the end of the tower. Every real block becomes a real block.
    """
    assert 0 <= block <= PUBLISHED_DEPTH
    last = depth if block == PUBLISHED_DEPTH else depth - 1
    return min(round(block / PUBLISHED_DEPTH * depth), last)
