"""Labels for new images from a trained checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.views import tokens_of
from fedmpt.data.features.store import FeatureSet
from fedmpt.data.images import read_image
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.scoring import personal_scores, set_global
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.federated.simulate import Progress
from fedmpt.methods import Method
from fedmpt.runs.config import DTYPES, RunConfig
from fedmpt.runs.records import check_record, check_sources, load_calibration
from fedmpt.seeding import generator
from fedmpt.state import get_state
from fedmpt.types import Backbone, Batch, InputError, State


@dataclass(frozen=True)
class Label:
    """A class with its probability in [0, 1], and whether that is over the class's threshold."""

    name: str
    probability: float
    present: bool


@dataclass(frozen=True)
class Trained:
    """A method restored from a checkpoint, ready to score images: the global model.

    ``initial`` holds the personal tensors as the method was built.
    """

    config: RunConfig
    backbone: Backbone
    class_names: tuple[str, ...]
    method: Method
    calibration: Calibration | None
    client_names: tuple[str, ...]
    progress: Progress
    initial: State

    def personal_scores(self, test: FeatureSet) -> dict[str, Any]:
        """Scores of the clients' own models, see `fedmpt.evaluation.scoring`; the method has personal tensors."""
        return personal_scores(
            self.method,
            self.progress.state,
            personal=self.progress.personal,
            initial=self.initial,
            client_names=self.client_names,
            test=test,
        )


def load_trained(
    checkpoint: Path, *, backbone: str | None = None, device: str = "cpu", class_names: Sequence[str] | None = None
) -> Trained:
    """Build the method a checkpoint was trained with, on the backbone it names or the one given.

    Raises:
        InputError: if the checkpoint is damaged, or of other classes, another method or another backbone.
    """
    if not (checkpoint / "checkpoint.json").exists() and (checkpoint / "checkpoint").is_dir():
        raise InputError(f"{checkpoint} is the folder of a run; give the checkpoint in it, {checkpoint / 'checkpoint'}")
    stored = load_checkpoint(checkpoint)
    record = stored.record
    config = RunConfig.from_json(record["config"], source=f"{checkpoint}/checkpoint.json")
    names = tuple(record["class_names"])
    frozen = load_backbone(backbone or config.backbone, device=device, dtype=DTYPES[config.dtype])
    check_record(record, frozen, class_names, source=str(checkpoint))
    method = config.method.build(frozen, names, generator=generator(config.seed, "init"))
    check_sources(record, method.sources, source=str(checkpoint))
    _, initial = method.split(get_state(method))
    set_global(method, stored.progress.state, initial=initial, source=str(checkpoint))
    # Checkpoints of before any method had personal tensors do not name the clients.
    clients = tuple(record.get("clients", ()))
    calibration = load_calibration(checkpoint, names)
    return Trained(config, frozen, names, method, calibration, clients, stored.progress, initial)


def predict(trained: Trained, images: Sequence[Path], *, batch_size: int = 16) -> Iterator[tuple[Path, list[Label]]]:
    """Labels of each image, most probable first; probabilities are calibrated where the checkpoint can.

    Raises:
        InputError: for an image that cannot be read, when its turn comes.
    """
    trained.method.eval()
    with torch.no_grad():
        text = trained.method.encode_text()
    for start in range(0, len(images), batch_size):
        some = images[start : start + batch_size]
        for path, row in zip(some, _probabilities(trained, some, text), strict=True):
            yield path, _labels(trained, row)


@torch.no_grad()
def _probabilities(trained: Trained, images: Sequence[Path], text: Tensor) -> Float[Tensor, "B C"]:
    pictures = [read_image(path) for path in images]
    patches, pooled = _seen(trained, trained.backbone, pictures)
    views = {
        name: tokens_of(*_seen(trained, view.of(trained.backbone), pictures), num_streams=view.num_streams)
        for name, view in trained.method.views.items()
    }
    unknown = torch.full((len(images), len(trained.class_names)), -1, dtype=torch.int8, device=pooled.device)
    return trained.method(Batch(patches, pooled, unknown, views), text).cpu()


def _seen(
    trained: Trained, backbone: Backbone, pictures: Sequence[Image.Image]
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D"]]:
    """Features rounded as the stored ones are, so that an image scores the same here and in evaluate.

    ``backbone`` may be a view, whose preprocessing is its own.
    """
    pixels = torch.stack([backbone.preprocess(picture) for picture in pictures]).to(trained.method.device)
    stored = getattr(torch, trained.config.store_dtype)
    patches, pooled = (part.to(stored).float() for part in backbone.encode_image(pixels))
    return patches, pooled


def _labels(trained: Trained, row: Float[Tensor, " C"]) -> list[Label]:
    thresholds = torch.full_like(row, 0.5)
    shown = row
    if trained.calibration is not None:
        thresholds = trained.calibration.thresholds
        shown = trained.calibration.calibrated(row[None])[0]
    present = (row > thresholds).tolist()
    order = shown.argsort(descending=True).tolist()
    return [Label(trained.class_names[c], shown[c].item(), present[c]) for c in order]
