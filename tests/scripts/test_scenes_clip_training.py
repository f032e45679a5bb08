"""The training of scenes-clip: what images, captions and patch labels say is true, and a stopped run goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fedmpt.data.datasets.scenes import CLASS_NAMES, object_map
from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.scene import BACKGROUNDS, DISTRACTORS

# No one who uses the package runs these scripts: they made the model that comes with it.
pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "scenes_clip"


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import captions
        import objective
        import stream
        import train

        yield SimpleNamespace(captions=captions, objective=objective, stream=stream, train=train)


@pytest.fixture(scope="module")
def tokenizer_folder(parts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    parts.train.prepared_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(parts: SimpleNamespace, tokenizer_folder: Path) -> Any:
    return parts.train.prepared_tokenizer(tokenizer_folder)


def test_patch_shares_count_the_pixels_of_each_concept(parts: SimpleNamespace) -> None:
    stream, concepts = parts.stream, parts.captions.CONCEPTS
    scene = stream.ExampleStream(0, 0, batch_size=1).scene(17)
    shares = stream.patch_shares(scene)
    owner = object_map(scene.objects, scene.style)
    for row, column in np.ndindex(stream.GRID, stream.GRID):
        counted = dict.fromkeys(concepts, 0)
        for y, x in np.ndindex(stream.PATCH_PX, stream.PATCH_PX):
            index = owner[row * stream.PATCH_PX + y, column * stream.PATCH_PX + x]
            counted[scene.background if index < 0 else scene.objects[index].name] += 1
        found = shares[row * stream.GRID + column] * stream.PATCH_PX**2
        assert found.tolist() == list(counted.values())


def test_captions_name_nothing_that_is_not_there(parts: SimpleNamespace) -> None:
    captions, stream = parts.captions, parts.stream.ExampleStream(0, 0, batch_size=1)
    named_at_all = 0
    for index in range(300):
        scene = stream.scene(index)
        said = f" {captions.caption(scene, Draws(1, index))} ".replace(".", " ")
        shown = {item.name for item in scene.objects}
        for name in (*CLASS_NAMES, *DISTRACTORS):
            words = {name, *captions.SYNONYMS.get(name, ())}
            is_said = any(f" {word} " in said for word in words)
            assert name in shown or not is_said or _is_part_of_another(name, shown, captions), (name, said)
            named_at_all += is_said
        for background in BACKGROUNDS:
            if background != scene.background:
                assert not any(f" {place} " in said for place in captions.PLACES[background] if place != "in the dark")
    assert named_at_all > 400


def _is_part_of_another(name: str, shown: set[str], captions: object) -> bool:
    """ "boat" stands in "sailing boat", "clock" in "alarm clock"."""
    return any(f" {name} " in f" {word} " for other in shown for word in captions.SYNONYMS.get(other, ()))  # type: ignore[attr-defined]


def test_text_of_the_training_is_that_of_transformers(parts: SimpleNamespace, tokenizer: Any) -> None:
    model = parts.train.new_model(tokenizer, seed=0).eval()
    texts = ["a photo of a cat.", "background : at night , a dog and a potted plant."]
    padded = tokenizer(texts, padding=True, return_tensors="pt")
    ends = padded["attention_mask"].sum(1) - 1
    tokens = model.text_model.embeddings.token_embedding(padded["input_ids"])
    ours = parts.objective.encode_text(model, tokens, ends)
    theirs = model.get_text_features(**padded).pooler_output
    torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs, dim=-1))


def test_random_tokens_leave_the_words_and_the_end_in_place(parts: SimpleNamespace, tokenizer: Any) -> None:
    objective = parts.objective
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model = parts.train.new_model(tokenizer, seed=0)
    made = objective.Objective(model, tokenizer)
    text = made._text("background a photo of a", "cat", end=".")
    plain = model.text_model.embeddings.token_embedding(torch.tensor(text.ids))
    original = objective.encode_text
    objective.encode_text = lambda model, tokens, ends: seen.append((tokens, ends)) or original(model, tokens, ends)
    try:
        made.text_features([text] * 20, Draws(3), torch.Generator().manual_seed(0), chance=1.0)
    finally:
        objective.encode_text = original
    (tokens, ends), lengths = seen[0], set()
    for row, end in zip(tokens, ends.tolist(), strict=True):
        found = [any(torch.equal(vector, word) for vector in row[: end + 1]) for word in plain]
        assert all(found)
        torch.testing.assert_close(row[end - 2 : end], plain[-2:])  # "cat" and the full stop stand last.
        lengths.add(end)
    assert len(lengths) > 5


def test_a_stopped_training_goes_on_with_the_same_numbers(tokenizer_folder: Path, tmp_path: Path) -> None:
    def run(out: str, steps: int, stop_after: int | None = None) -> dict[str, object]:
        if not (tmp_path / out).exists():
            shutil.copytree(tokenizer_folder, tmp_path / out)
        words = ["--out", str(tmp_path / out), "--steps", str(steps), "--batch-size", "4", "--every", "2"]
        words += ["--probe-images", "20"]
        command = [sys.executable, str(SCRIPTS / "train.py"), *words]
        if stop_after is not None:
            command += ["--stop-after", str(stop_after)]
        subprocess.run(command, check=True, capture_output=True)
        lines = (tmp_path / out / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return {key: value for key, value in json.loads(lines[-1]).items() if key != "seconds"}

    whole = run("whole", 4)
    run("parts", 4, stop_after=2)
    assert run("parts", 4) == whole
