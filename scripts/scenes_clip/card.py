"""The model card of scenes-clip, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TEXT = Path(__file__).with_name("card.md")


def card(scores: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Markdown; ``scores`` as `publish.measure` gives them, ``facts`` fill the rest."""
    heads = ("patches", "pooled", "csra")
    zero_shot = [
        f"| {world} | {' | '.join(f'{found[head]:.1f}' for head in heads)} |"
        for world, found in scores["zero_shot"].items()
    ]
    contexts = [f"| {name} | {_spread(values)} |" for name, values in scores["untrained_contexts"].items()]
    text = _TEXT.read_text(encoding="utf-8")
    return text.format(zero_shot="\n".join(zero_shot), contexts="\n".join(contexts), **facts)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
