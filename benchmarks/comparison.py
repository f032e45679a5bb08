"""Zero-shot, PromptFL and FedMPT at their best settings (chosen on validation images, see docs/method.md)."""

from __future__ import annotations

from dataclasses import replace

from fedmpt.evaluation.final import Prediction
from fedmpt.federated.client import LocalTraining
from fedmpt.runs.config import RunConfig, preset


def rows(data: str) -> dict[str, RunConfig]:
    """A config for each line of the table; data set, backbone and seed are put in by `benchmarks/run.py`."""
    zero_shot, promptfl, fedmpt = (preset("default", name, data) for name in ("zero-shot", "promptfl", "fedmpt"))
    return {
        "zero-shot, patches": zero_shot,
        "zero-shot, pooled": replace(zero_shot, method=replace(zero_shot.method, head="pooled")),
        "zero-shot, CSRA": replace(zero_shot, method=replace(zero_shot.method, head="csra")),
        "PromptFL, 16 random tokens": promptfl,
        "PromptFL, from 'a photo of a'": with_method(promptfl, num_context=4, context_init="a photo of a"),
        "class-vectors": preset("default", "class-vectors", data),
        "linear-probe": preset("default", "linear-probe", data),
        "FedMPT, paper's values": paper_values(fedmpt),
        "FedMPT": fedmpt,
    }


def paper_values(fedmpt: RunConfig) -> RunConfig:
    """The paper's options, trained at the rate and for the rounds of ``fedmpt``."""
    return replace(fedmpt, method=type(fedmpt.method).paper(), training=LocalTraining(), prediction=Prediction())


def with_method(config: RunConfig, **options: object) -> RunConfig:
    return replace(config, method=replace(config.method, **options))
