"""Train scenes-clip, the small CLIP that the package brings along, from nothing: about half an hour on two cores.

    python scripts/scenes_clip/train.py --out runs/scenes-clip

Kill it whenever you like; the same command goes on from the last stored step. `publish.py` then writes the model into
the package with its card.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from captions import caption, corpus
from objective import Objective, encode_text, image_features, normalised_pixels
from stream import Examples, ExampleStream, loader
from tokenizer import MAX_LENGTH, write_tokenizer
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from fedmpt.data.datasets.scenes import CLASS_NAMES
from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.scene import SIDE_PX, STYLES
from fedmpt.evaluation.metrics import multilabel_scores

JOINT_WIDTH = 128
VISION = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "image_size": SIDE_PX,
    "patch_size": 16,
}
TEXT = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
WARMUP = 200
PEAK_RATE, WEIGHT_DECAY = 3e-3, 0.05
# At the full rate token vectors grow to five times their start, and contexts that start from words then hardly move.
TOKEN_RATE_FACTOR = 0.1
MAX_LOGIT_SCALE = 100.0

# Names in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=250, help="steps between two scores and stored states")
    parser.add_argument("--probe-images", type=int, default=500, help="pictures outside training to score on")
    parser.add_argument("--stop-after", type=int, help="stop after this many steps of the schedule; to be continued")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    keep_memory()
    tokenizer = prepared_tokenizer(options.out)
    model = new_model(tokenizer, seed=options.seed)
    optimizers = new_optimizers(model)
    done, earlier = restore(options.out / "state.pt", model, optimizers)
    objective = Objective(model, tokenizer)
    probe = ExampleStream(0, 0, batch_size=1, styles=STYLES, spurious=0).examples(
        range(10**7, 10**7 + options.probe_images)
    )
    began = time.perf_counter()
    last = min(options.steps, options.stop_after or options.steps)
    for step, batch in enumerate(loader(ExampleStream(done, last, batch_size=options.batch_size)), done):
        losses = train_step(objective, optimizers, batch, step=step, rate=learning_rate(step, options.steps))
        if (step + 1) % options.every == 0 or step + 1 == last:
            line = {"step": step + 1, "batch_size": options.batch_size}
            line |= {"seconds": round(earlier + time.perf_counter() - began, 1)}
            line |= {name: round(loss.item(), 4) for name, loss in losses.items()}
            line |= {"logit_scale": round(model.logit_scale.exp().item(), 2), **probe_scores(model, tokenizer, probe)}
            store(options.out, model, optimizers, step + 1, line)


def train_step(
    objective: Objective, optimizers: list[torch.optim.Optimizer], batch: Examples, *, step: int, rate: float
) -> dict[str, torch.Tensor]:
    """One update of the model; the losses before it."""
    model = objective.model
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = objective(batch, step)
    model.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
    return losses


def keep_memory() -> None:
    """Have glibc keep freed memory: a third of the processors' time went into mapping and clearing it anew."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # Another system; it works there too.
        return
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
        libc.mallopt(option, value)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP)))


def prepared_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, trained there first unless it is there."""
    if (folder / "vocab.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    stream = ExampleStream(0, 0, batch_size=1)
    texts = [caption(stream.scene(index), Draws(index)) for index in range(3000)]
    write_tokenizer(folder, [*texts, *corpus()])
    return CLIPTokenizer.from_pretrained(folder)


def new_model(tokenizer: Any, *, seed: int) -> Any:
    """A CLIPModel with random weights; the same seed gives the same."""
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    tower = {"hidden_act": "gelu", "projection_dim": JOINT_WIDTH}
    config = CLIPConfig(
        text_config={**TEXT, **tower, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": MAX_LENGTH},
        vision_config={**VISION, **tower},
        projection_dim=JOINT_WIDTH,
        logit_scale_init_value=math.log(20),
    )
    torch.manual_seed(seed)
    return CLIPModel(config)


def new_optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the blocks, which saves about a third of the steps; AdamW for the rest."""
    tokens = [model.text_model.embeddings.token_embedding.weight]
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    taken = {id(p) for p in (*tokens, *matrices)}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [{"params": rest}, {"params": tokens, "factor": TOKEN_RATE_FACTOR}]
    return [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def probe_scores(model: Any, tokenizer: Any, probe: Any) -> dict[str, float]:
    """Zero-shot mAP on images outside training: softmax over patches, and of the class token."""
    ids = [tokenizer(f"a photo of a {name}.")["input_ids"] for name in CLASS_NAMES]
    ends = torch.tensor([len(row) - 1 for row in ids])
    padded = torch.tensor([[*row, *[row[-1]] * (int(ends.max()) + 1 - len(row))] for row in ids])
    text = encode_text(model, model.text_model.embeddings.token_embedding(padded), ends)
    parts = [image_features(model, normalised_pixels(pixels)) for pixels in probe.pixels.split(50)]
    patches, pooled = (torch.cat(column) for column in zip(*parts, strict=True))
    scale = model.logit_scale.exp()
    labels = probe.present.to(torch.int8)
    by_head = {
        "patches": (scale * patches @ text.T).softmax(-1).mean(1),
        "pooled": (scale * pooled @ text.T).softmax(-1),
    }
    return {f"mAP_{head}": round(multilabel_scores(found, labels).mAP, 2) for head, found in by_head.items()}


def store(out: Path, model: Any, optimizers: list[torch.optim.Optimizer], step: int, line: dict[str, Any]) -> None:
    temporary = out / "state.tmp"
    states = [optimizer.state_dict() for optimizer in optimizers]
    progress = {"step": step, "seconds": line["seconds"]}
    torch.save({**progress, "model": model.state_dict(), "optimizers": states}, temporary)
    temporary.replace(out / "state.pt")
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def restore(path: Path, model: Any, optimizers: list[torch.optim.Optimizer]) -> tuple[int, float]:
    """Steps done and seconds they took, after loading the state of a run of our own if there is one."""
    if not path.exists():
        return 0, 0.0
    stored = torch.load(path, weights_only=True)
    model.load_state_dict(stored["model"])
    for optimizer, state in zip(optimizers, stored["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return int(stored["step"]), float(stored["seconds"])


if __name__ == "__main__":
    main()
