"""One FedMPT step with text as vectors, against the same with prompts through the text tower, and a round's traffic.

Random features and a text tower of random weights: ViT-B/16's CLIP (12 layers x 512, 196 patches), or with ``--small``
the sizes of the project's model for photos (3 layers x 256, 49 patches). N = 5 conditions, C = 20 classes, 32 images.
Steps of all rows take turns in one process, so that what else the machine does falls on all alike.

    python benchmarks/speed/vectors.py --out benchmarks/results/speed_vectors_vit_b16.json
    python benchmarks/speed/vectors.py --small --out benchmarks/results/speed_vectors_small.json
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch
from text_tower import BATCH_SIZE, END, START, WordTokenizer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from fedmpt.data.datasets.voc import CLASS_NAMES
from fedmpt.files import write_json
from fedmpt.methods import METHODS, Method, MethodConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.state import get_state, num_bytes, num_parameters
from fedmpt.types import Backbone, Batch


def rows() -> dict[str, MethodConfig]:
    default = FedMPTConfig()
    return {
        "FedMPT": default,
        "FedMPT, without the second reading": replace(default, csra=False),
        "FedMPT, text=both": replace(default, text="both"),
        "FedMPT, text=prompts, one reading (the default before)": replace(
            default, text="prompts", csra=False, entropy=1.0
        ),
        "FedMPT, paper's values": FedMPTConfig.paper(),
        "PromptFL, 4 tokens": METHODS["promptfl"](num_context=4),  # type: ignore[call-arg]
        "class-vectors": METHODS["class-vectors"](),
        "linear-probe": METHODS["linear-probe"](),
    }


def backbone(layers: int, width: int) -> Backbone:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        vocab_size=49408,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = CLIPTextModelWithProjection(config).eval().requires_grad_(False)
    return cast(Backbone, SimpleNamespace(logit_scale=100.0, tokenizer=WordTokenizer(), text_model=model))


def batch(num_patches: int, width: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(BATCH_SIZE, num_patches, width, generator=generator)
    labels = (torch.rand(BATCH_SIZE, len(CLASS_NAMES), generator=generator) < 0.1).to(torch.int8)
    return Batch(patches, patches.mean(1), labels)


def step(method: Method, optimizer: torch.optim.Optimizer, images: Batch) -> float:
    """Seconds of loss, backward and optimiser."""
    began = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    method.loss(images).backward()
    optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the sizes of the model for photos")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layers, width, num_patches = (3, 256, 49) if options.small else (12, 512, 196)
    model, images, configs = backbone(layers, width), batch(num_patches, width), rows()
    methods = {
        name: c.build(model, CLASS_NAMES, generator=torch.Generator().manual_seed(0)) for name, c in configs.items()
    }
    optimizers = {n: m.optimizer(learning_rate=1e-3, momentum=0.9, weight_decay=1e-5) for n, m in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(options.steps + 1):
        for name, method in methods.items():
            took = step(method, optimizers[name], images)
            if turn:  # The first does not count.
                seconds[name].append(took)
    states = {name: get_state(method) for name, method in methods.items()}
    table = {
        name: {"ms": 1000 * min(seconds[name]), "median_ms": 1000 * statistics.median(seconds[name])}
        | {"trained": num_parameters(states[name]), "sent_bytes": num_bytes(states[name])}
        for name in methods
    }
    print("| | ms a step, best | median | trained | kB a client sends in a round |\n|---|---:|---:|---:|---:|")
    for name, row in table.items():
        numbers = f"{row['ms']:.1f} | {row['median_ms']:.1f} | {row['trained']:,} | {row['sent_bytes'] / 1000:.0f}"
        print(f"| {name} | {numbers} |")
    if options.out:
        facts = {"layers": layers, "width": width, "patches": num_patches, "batch": BATCH_SIZE}
        facts |= {"steps": options.steps, "threads": options.threads}
        write_json(options.out, {**facts, "torch": torch.__version__, "cpu": platform.machine(), "rows": table})


if __name__ == "__main__":
    main()
