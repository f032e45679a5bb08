"""What each part of FedMPT contributes: those of the paper (its Table 4, and more), and those of the default."""

from __future__ import annotations

from dataclasses import replace

from comparison import with_method

from fedmpt.evaluation.final import Prediction
from fedmpt.federated.client import LocalTraining
from fedmpt.runs.config import RunConfig, preset


def rows(data: str) -> dict[str, RunConfig]:
    return paper_parts(data) | default_parts(data)


def paper_parts(data: str) -> dict[str, RunConfig]:
    """With prompts, one reading and unbalanced labels."""
    plain = replace(preset("default", "fedmpt", data), training=LocalTraining(), prediction=Prediction())
    full = with_method(plain, text="prompts", csra=False, model_rates=False, entropy=1.0)
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


def default_parts(data: str) -> dict[str, RunConfig]:
    full = preset("default", "fedmpt", data)
    return {
        "default": full,
        "default, prompts": with_method(full, text="prompts"),
        "default, both": with_method(full, text="both"),
        "default, one reading": with_method(full, csra=False),
        "default, not balanced": replace(full, training=LocalTraining()),
        "default, no adapters": with_method(full, adapters=False),
        "default, no transport": with_method(full, transport="mean"),
        "default, mix 1": replace(full, prediction=Prediction()),
        "default, no gate": with_method(full, gate=False),
        "default, one condition": with_method(full, conditions=("object",)),
    }
