"""Every method of the table, its published values and every combination of FedMPT's parts keep the contract."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from contract import MethodContract

from fedmpt.methods import METHODS, MethodConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.fedmvp import FedMVPConfig
from fedmpt.runs.config import RunConfig

ATTRIBUTES = str(Path(__file__).with_name("attributes.json"))


def with_texts(config: MethodConfig) -> MethodConfig:
    """Classes of the suite have no attributes in the package, so methods that read some get a file."""
    return dataclasses.replace(config, attributes=ATTRIBUTES) if isinstance(config, FedMVPConfig) else config


CONFIGS = {name: with_texts(config()) for name, config in METHODS.items()}
PAPER = {f"{name}-paper": with_texts(config.paper()) for name, config in METHODS.items()}
TABLE = CONFIGS | {name: config for name, config in PAPER.items() if config not in CONFIGS.values()}

ZERO_SHOT_HEADS = {
    f"zero-shot-{head}": dataclasses.replace(CONFIGS["zero-shot"], head=head) for head in ("pooled", "csra")
}


def fedmpt_part(**parts: Any) -> FedMPTConfig:
    small: dict[str, Any] = {
        "conditions": ("dog", "the pose"),
        "rank": 4,
        "class_context_init": "",
        "model_rates": False,
    }
    # The gate hardly opens where conditions differ by their adapters alone.
    rates = {"model_rates": False, "adapter_rate": 5.0, "gate_rate": 100.0, "calibration_rate": 5.0}
    return FedMPTConfig(**small | rates | parts)


def fedmpt_parts() -> dict[str, FedMPTConfig]:
    found = {}
    switch = (True, False)
    parts_of = [(*on, "sinkhorn") for on in product(switch, repeat=3)]
    # How patches are weighed knows nothing of the other parts.
    others = [(on, on, on, transport) for on in switch for transport in ("rows", "mean")]
    for prompts, adapters, gate, transport in (*parts_of, *others):
        parts = [word for word, on in (("prompts", prompts), ("adapters", adapters), ("gate", gate)) if on]
        found["-".join([*parts, transport])] = fedmpt_part(
            condition_prompts=prompts, adapters=adapters, transport=transport, gate=gate, calibration=False
        )
    found["all-calibrated"] = fedmpt_part(calibration=True)
    found["none-calibrated"] = fedmpt_part(
        condition_prompts=False, adapters=False, gate=False, transport="mean", calibration=True
    )
    found["one-condition"] = fedmpt_part(conditions=("dog",))
    return found


FORMS = {"fedmvp-reduced": FedMVPConfig(form="reduced")}

ALL = TABLE | ZERO_SHOT_HEADS | FORMS | fedmpt_parts()


RATES: dict[str, float] = {"dualcoop": 3e-4, "ram": 1e-3, "linear-probe": 0.3}
"""Learning rates at which the loss falls within a few steps, where they are not the suite's own."""

USE_UNLABELLED: set[str] = {"fedmvp", "scpnet"}
"""Methods whose loss has a part for images without labels."""


class TestMethods(MethodContract):
    @pytest.fixture(params=ALL.values(), ids=ALL.keys())
    def config(self, request: pytest.FixtureRequest) -> MethodConfig:
        self.learning_rate = RATES.get(request.param.name, MethodContract.learning_rate)
        self.uses_unlabelled = request.param.name in USE_UNLABELLED
        return request.param

    def test_config_survives_json(self, config: MethodConfig) -> None:
        run = RunConfig(data="voc:VOCdevkit", method=config)
        words = json.loads(json.dumps(run.to_json(), allow_nan=False))
        assert RunConfig.from_json(words, source="config.json") == run


def test_the_table_names_its_methods() -> None:
    for name, config in METHODS.items():
        assert config.name == name
        assert config.summary
        assert config.source
        assert isinstance(config.paper(), config)
