"""One FedMPT training step against the same step with whole prompts padded to 77 tokens.

Text tower of ViT-B/16's CLIP size (12 x 512) with random weights, N = 5 conditions, C = 20 classes, 32 images of 196
patches. Both ways run in one process, in turn; their gradients are compared. Prints a table and writes JSON.

    python benchmarks/speed/text_tower.py [--device cuda] [--dtype bf16] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

# The plain computation serves the tests first.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from plain_prompts import encode_plainly

from fedmpt.backbone.text_tower import PromptEmbeddings
from fedmpt.data.datasets.voc import CLASS_NAMES
from fedmpt.methods.fedmpt import FedMPT, FedMPTConfig
from fedmpt.runs.config import DTYPES
from fedmpt.types import Backbone, Batch

BATCH_SIZE, NUM_PATCHES, WIDTH = 32, 196, 512
START, END = 49406, 49407


@dataclass(frozen=True)
class Timing:
    """Seconds of the counted steps; peak memory in MiB, of the GPU or of the whole process so far; the gradients."""

    name: str
    seconds: list[float]
    peak_mib: float
    gradients: dict[str, Tensor] = field(repr=False)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class WordTokenizer:
    """One token a word, as CLIP's BPE has for these names but two; the speed does not depend on which."""

    bos_token_id, eos_token_id = START, END

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": [sum(map(ord, word)) % 40_000 + 300 for word in text.split()]}


def text_model(device: str, dtype: torch.dtype) -> CLIPTextModelWithProjection:
    """ViT-B/16's CLIP text tower with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
    config = CLIPTextConfig(
        **sizes, projection_dim=WIDTH, vocab_size=49408, bos_token_id=START, eos_token_id=END, pad_token_id=END
    )
    return CLIPTextModelWithProjection(config).eval().requires_grad_(False).to(device, dtype)


def build(device: str, dtype: torch.dtype) -> tuple[FedMPT, CLIPTextModelWithProjection]:
    """FedMPT as the paper sets it, and its text model."""
    model = text_model(device, dtype)
    backbone = SimpleNamespace(logit_scale=100.0, tokenizer=WordTokenizer(), text_model=model)
    generator = torch.Generator().manual_seed(0)
    method = FedMPTConfig.paper().build(cast(Backbone, backbone), CLASS_NAMES, generator=generator)
    with torch.no_grad():
        method.adapter_up.normal_(std=0.02)
        method.gate_up.normal_(std=0.02)
    return method, model


def random_batch(device: str) -> Batch:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(BATCH_SIZE, NUM_PATCHES, WIDTH, generator=generator)
    labels = (torch.rand(BATCH_SIZE, len(CLASS_NAMES), generator=generator) < 0.1).to(torch.int8)
    return Batch(patches.to(device), patches.mean(1).to(device), labels.to(device))


def step(method: FedMPT, encode: Callable[[PromptEmbeddings], Tensor], batch: Batch) -> dict[str, Tensor]:
    """Forward, loss, backward; returns the gradients."""
    method.zero_grad(set_to_none=True)
    prompts = method.template.embed(method.condition_context, method.class_context)
    text = nn.functional.normalize(encode(prompts), dim=-1)
    method.loss(batch, text).backward()
    return {name: cast(Tensor, parameter.grad).clone() for name, parameter in method.named_parameters()}


def measure(name: str, run: Callable[[], dict[str, Tensor]], device: str, runs: int) -> Timing:
    """Time ``run`` after one step that does not count, and keep its gradients."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    gradients = run()
    seconds = []
    for _ in range(runs):
        begin = _clock(device)
        run()
        seconds.append(_clock(device) - begin)
    return Timing(name, seconds, _peak_mib(device), gradients)


def _peak_mib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    # Linux counts KiB, macOS bytes. It never falls, so the smaller way has to be measured first.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _clock(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Over all trained tensors, the relative difference of the gradients."""
    return max(((ours[name] - grad).norm() / grad.norm()).item() for name, grad in theirs.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32", choices=DTYPES)
    parser.add_argument("--runs", type=int, default=5, help="counted steps; the plain way runs 3 at most")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    method, model = build(options.device, DTYPES[options.dtype])
    batch = random_batch(options.device)
    plain = partial(encode_plainly, model)
    timings = [
        measure("shared prefix, cut", lambda: step(method, method.tower.encode, batch), options.device, options.runs),
        measure("whole prompts, 77 tokens", lambda: step(method, plain, batch), options.device, min(3, options.runs)),
    ]
    report(timings, options)


def report(timings: list[Timing], options: argparse.Namespace) -> None:
    fast, plain = timings
    difference = largest_difference(fast.gradients, plain.gradients)
    table = Table(title=f"One FedMPT step, {options.device}, {options.dtype}, {torch.get_num_threads()} threads")
    for column in ("text tower", "median s", "min s", "max s", "peak MiB"):
        table.add_column(column, justify="left" if column == "text tower" else "right")
    for timing in timings:
        cells = [f"{value:.3f}" for value in (timing.median, min(timing.seconds), max(timing.seconds))]
        table.add_row(timing.name, *cells, f"{timing.peak_mib:.0f}")
    console = Console()
    console.print(table)
    console.print(f"ratio {plain.median / fast.median:.1f}, gradients differ by {difference:.1e} at most (relative)")
    if options.out:
        facts = {
            "device": options.device,
            "dtype": options.dtype,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "ratio": plain.median / fast.median,
            "largest_gradient_difference": difference,
            "timings": [{"name": t.name, "seconds": t.seconds, "peak_mib": t.peak_mib} for t in timings],
        }
        options.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
