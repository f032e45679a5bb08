"""The card in the package says what the model in the package is."""

from __future__ import annotations

import json

from safetensors.torch import load_file

from fedmpt.backbone.load import BUILT_IN

FOLDER = BUILT_IN["scenes-clip"]


def test_card_and_model_agree() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    weights = load_file(FOLDER / "model.safetensors")
    assert f"{sum(tensor.numel() for tensor in weights.values()):,} parameters" in card
    scores = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    natural = scores["zero_shot"]["natural"]
    assert f"| natural | {natural['patches']:.1f} | {natural['pooled']:.1f} | {natural['csra']:.1f} |" in card
    last = json.loads((FOLDER / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert f"{last['step']:,} steps of {last['batch_size']} images" in card
