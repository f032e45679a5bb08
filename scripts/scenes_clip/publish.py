"""Put a trained scenes-clip into the package, half precision, with its training log and a card of measured scores.

python scripts/scenes_clip/publish.py --run runs/scenes-clip
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from card import card
from objective import MEAN, STD
from safetensors.torch import load_file
from train import new_model, prepared_tokenizer

from fedmpt.backbone import load_backbone
from fedmpt.data import load_data
from fedmpt.data.datasets.scenes.scene import SIDE_PX
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.files import default_cache, write_json
from fedmpt.methods import METHODS, MethodConfig
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.methods.zero_shot import ZeroShotConfig
from fedmpt.seeding import generator
from fedmpt.state import num_parameters
from fedmpt.types import Backbone

TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
TARGET = Path(__file__).resolve().parents[2] / "src" / "fedmpt" / "assets" / "scenes-clip"
WORLDS = {
    "natural": "scenes",
    "broken": "scenes:test=broken",
    "reversed": "scenes:test=reversed",
    "natural, Noto only": "scenes:styles=noto",
    "natural, Twemoji only": "scenes:styles=twemoji",
    "natural, Fluent only": "scenes:styles=fluent",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--into", type=Path, default=TARGET, help="folder for the model; replaced if there")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    write_model(options.run, options.into)
    backbone = load_backbone(str(options.into))
    scores = measure(backbone, options.cache)
    write_json(options.into / "scores.json", scores)
    (options.into / "README.md").write_text(card(scores, facts(backbone, options.run, options.into)), encoding="utf-8")
    print(json.dumps(scores, indent=2))


def facts(backbone: Backbone, run: Path, into: Path) -> dict[str, Any]:
    """What the card says of the model and its training."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = log[-1]
    return {
        "parameters": num_parameters(load_file(into / "model.safetensors")),
        "logit_scale": backbone.logit_scale,
        "token_size": backbone.text_model.get_input_embeddings().weight.std().item(),  # type: ignore[operator]
        "tokens": len(backbone.tokenizer),  # type: ignore[arg-type]
        "steps": last["step"],
        "batch_size": last["batch_size"],
        "images": last["step"] * last["batch_size"],
        "minutes": last["seconds"] / 60,
    }


def write_model(run: Path, into: Path) -> None:
    """The last stored state of a run as a Hugging Face CLIP folder."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copy(run / name, into)
    tokenizer = prepared_tokenizer(into)
    model = new_model(tokenizer, seed=0)
    model.load_state_dict(torch.load(run / "state.pt", weights_only=True)["model"])
    model.half().save_pretrained(into)
    (into / "model.safetensors").chmod(0o644)  # Written for its owner alone.
    preprocessing = {
        "crop_size": {"height": SIDE_PX, "width": SIDE_PX},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": MEAN,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SIDE_PX},
    }
    write_json(into / "preprocessor_config.json", preprocessing)
    shutil.copy(run / "log.jsonl", into / "training_log.jsonl")


def measure(backbone: Backbone, cache: Path) -> dict[str, Any]:
    """mAP without training: by head and world, and with contexts that were never trained."""
    heads: dict[str, MethodConfig] = {head: ZeroShotConfig(head=head) for head in ("patches", "pooled", "csra")}
    zero_shot = {}
    for world, spec in WORLDS.items():
        test = open_features(backbone, load_data(spec, cache=cache).test, cache=cache, progress=False)
        zero_shot[world] = {head: mean_ap(config, backbone, test, seed=0) for head, config in heads.items()}
        if world == "natural":
            contexts = untrained_contexts(backbone, test)
    return {"zero_shot": zero_shot, "untrained_contexts": contexts}


def untrained_contexts(backbone: Backbone, test: FeatureSet) -> dict[str, list[float]]:
    """Three seeds each: prompts of PromptFL and of FedMPT before their first step."""
    configs: dict[str, MethodConfig] = {
        f"{num} random tokens, CSRA head": PromptFLConfig(num_context=num) for num in (4, 8, 16)
    }
    fedmpt = METHODS["fedmpt"]
    configs["FedMPT's prompts, words"] = fedmpt(transport="mean")  # type: ignore[call-arg]
    configs["FedMPT's prompts, random tokens"] = fedmpt(transport="mean", class_context_init="")  # type: ignore[call-arg]
    return {name: [mean_ap(config, backbone, test, seed=s) for s in range(3)] for name, config in configs.items()}


def mean_ap(config: MethodConfig, backbone: Backbone, test: FeatureSet, *, seed: int) -> float:
    names = load_data("scenes:num_train=1,num_test=1").class_names
    method = config.build(backbone, names, generator=generator(seed, "init"))
    return round(multilabel_scores(probabilities(method, test), test.labels).mAP, 2)


if __name__ == "__main__":
    main()
