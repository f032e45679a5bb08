"""Draw docs/scenes.png: two rows of natural scenes, one of spurious training scenes, one of reversed test scenes.

python scripts/draw_scene_sheet.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fedmpt.data.datasets.scenes import PARTNERS, Scene, SceneOptions, render, sample_scene
from fedmpt.data.datasets.scenes.scene import SIDE_PX

OUT = Path(__file__).resolve().parents[1] / "docs" / "scenes.png"
NUM_COLUMNS = 8
GAP_PX = 3
ANCHORS = {pair.anchor for pair in PARTNERS}


def main() -> None:
    natural, spurious, reversed_ = SceneOptions(), SceneOptions(spurious=1.0), SceneOptions(test="reversed")
    rows = [
        [sample_scene(natural, "train", index) for index in range(NUM_COLUMNS)],
        [sample_scene(natural, "train", index) for index in range(NUM_COLUMNS, 2 * NUM_COLUMNS)],
        [first_with(pair.anchor, spurious, "train") for pair in PARTNERS[:NUM_COLUMNS]],
        [first_with(pair.anchor, reversed_, "test") for pair in PARTNERS[:NUM_COLUMNS]],
    ]
    step = SIDE_PX + GAP_PX
    sheet = Image.new("RGB", (NUM_COLUMNS * step - GAP_PX, len(rows) * step - GAP_PX), "white")
    for row, scenes in enumerate(rows):
        for column, scene in enumerate(scenes):
            sheet.paste(Image.fromarray(render(scene)), (column * step, row * step))
    sheet.quantize(256, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


def first_with(name: str, options: SceneOptions, split: str) -> Scene:
    """The first scene of a split that shows a class upright, in plain light, with one or two others."""
    index = 0
    while True:
        scene = sample_scene(options, split, index)
        shown = set(scene.class_names)
        is_plain = (scene.weather, scene.lighting, scene.pose) == ("clear", "daylight", "upright")
        if is_plain and shown & ANCHORS == {name} and 2 <= len(shown) <= 3:
            return scene
        index += 1


if __name__ == "__main__":
    main()
