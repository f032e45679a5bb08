"""What each part of FedMPT contributes (the paper's Table 4, and more)."""

from __future__ import annotations

from comparison import with_method

from fedmpt.runs.config import RunConfig, preset


def rows(data: str) -> dict[str, RunConfig]:
    full = preset("default", "fedmpt", data)
    prompts_only = with_method(full, adapters=False, transport="mean", gate=False)
    adapters_only = with_method(full, condition_prompts=False, transport="mean", gate=False)
    both = with_method(full, transport="mean", gate=False)
    return {
        "condition prompts": prompts_only,
        "adapters": adapters_only,
        "both": both,
        "both + transport": with_method(full, gate=False),
        "both + gate": with_method(full, transport="mean"),
        "all": full,
        "all, rows only": with_method(full, transport="rows"),
        "all, entropy 0.2": with_method(full, entropy=0.2),
        "all, entropy 5": with_method(full, entropy=5.0),
        "all, no calibration": with_method(full, calibration=False),
        "all, random context": with_method(full, class_context_init=""),
    }
