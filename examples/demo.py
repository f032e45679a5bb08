"""Zero-shot, PromptFL and FedMPT across ten clients, on pictures drawn here and a model with random weights.

    python examples/demo.py --out runs/demo

Needs no network and nothing on disk. It shows that everything works together; the scores say little, because the
model knows nothing of the pictures beyond what its random features keep of their colours.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parents[1]
# The writer of random CLIP folders serves the tests first.
sys.path.insert(0, str(PROJECT / "tests"))

from tiny_clip import write_tiny_clip  # noqa: E402

from fedmpt.cli import main as fedmpt  # noqa: E402

COLOURS = {"cat": "orange", "dog": "brown", "chair": "blue", "sofa": "green", "boat": "purple", "bird": "red"}
RUNS = {
    "zero-shot": [],
    "promptfl": ["--num-context", "4", "--learning-rate", "0.03"],
    "fedmpt": [],
}


def draw(path: Path, objects: list[str], dice: random.Random) -> None:
    """One blob in its class's colour for each object."""
    image = Image.new("RGB", (64, 64), "white")
    canvas = ImageDraw.Draw(image)
    for name in objects:
        left, top, size = dice.randrange(40), dice.randrange(40), dice.randrange(14, 26)
        canvas.ellipse((left, top, left + size, top + size), fill=COLOURS[name])
    image.save(path, quality=95)


def write_pictures(root: Path, *, num_train: int, num_test: int, seed: int = 0) -> None:
    """Pictures in VOC's own layout; in training, cats usually come with chairs."""
    dice = random.Random(seed)
    base = root / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for split, count in (("trainval", num_train), ("test", num_test)):
        names = [f"{split}{index:04d}" for index in range(count)]
        for name in names:
            objects = dice.sample(sorted(COLOURS), dice.randint(1, 2))
            if split == "trainval" and "cat" in objects and dice.random() < 0.8:
                objects = sorted({*objects, "chair"})
            draw(base / f"JPEGImages/{name}.jpg", objects, dice)
            items = "".join(f"<object><name>{word}</name><difficult>0</difficult></object>" for word in objects)
            (base / f"Annotations/{name}.xml").write_text(f"<annotation>{items}</annotation>", encoding="utf-8")
        (base / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def train(words: list[str]) -> None:
    """`fedmpt train`, which ends by leaving the interpreter."""
    try:
        fedmpt(words)
    except SystemExit as leaving:
        if leaving.code:
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description="Zero-shot, PromptFL and FedMPT across ten clients.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the runs; replaced if there")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    write_pictures(options.out / "pictures", num_train=400, num_test=200)
    write_tiny_clip(options.out / "clip", size="tiny")

    table = Table(title="test pictures, percent")
    for column in ("method", "mAP", "CF1", "OF1", "trained", "sent per client and round"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, flags in RUNS.items():
        folder = options.out / method
        common = ["--data", f"voc:{options.out / 'pictures'}", "--backbone", str(options.out / "clip")]
        clients = ["--setting", "iid", "--clients", "10", "--rounds", str(options.rounds)]
        words = ["train", "--method", method, *flags, *common, *clients, "--out", str(folder)]
        train([*words, "--cache", str(options.out / "cache")])
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        scores = [f"{results['test'][metric]:.1f}" for metric in ("mAP", "CF1", "OF1")]
        params = results["params"]
        table.add_row(method, *scores, f"{params['trainable']:,}", f"{params['sent_bytes_per_round']:,} bytes")
    Console().print(table)
    print("The model's weights are random: this shows that everything runs, not which method is better.")


if __name__ == "__main__":
    main()
