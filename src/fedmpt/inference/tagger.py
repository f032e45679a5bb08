"""A trained model as an object: labels for new images, and scores on stored features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.views import tokens_of
from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.data.images import read_image
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.final import FinalModel, Prediction
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.inference.new_classes import grown_calibration, grown_state, grown_ties, new_names
from fedmpt.methods import Method
from fedmpt.runs.config import DTYPES, RunConfig
from fedmpt.runs.prediction import load_prediction, load_ties
from fedmpt.runs.records import check_record, check_revision, check_sources
from fedmpt.seeding import generator
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, Batch, InputError, Split

UNCALIBRATED = (
    "the checkpoint's thresholds are for another --soft-ties, so every class has 0.5 here; fedmpt calibrate fits them"
)
NEW_CLASSES = (
    "no training image had labels of {}: the threshold is 0.5 there, and the probability is calibrated by the means of "
    "the trained classes"
)


@dataclass(frozen=True)
class Label:
    """A class with its probability in [0, 1], and whether that is over the class's threshold."""

    name: str
    probability: float
    present: bool


@dataclass(frozen=True)
class Tagger:
    """Tags images with the classes that a run was trained for. `load` makes one from a run.

    ``model`` gives the final probabilities. ``calibration`` is None where there is none for them: `tag` then takes 0.5
    for every class. ``notes`` are what a user should hear about that.
    """

    config: RunConfig
    backbone: Backbone
    class_names: tuple[str, ...]
    options: Prediction
    model: FinalModel
    calibration: Calibration | None
    client_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> Method:
        """The global model as a method, which knows nothing of soft ties."""
        return self.model.method

    def tag(self, images: Sequence[Path | str], *, batch_size: int = 16) -> Iterator[tuple[Path, list[Label]]]:
        """Each image file with a `Label` for every class, the most probable first.

        A label has ``name``, ``probability`` in [0, 1], calibrated where the run could, and ``present``, whether it is
        over its class's threshold. Images are opened as they are asked for, ``batch_size`` at a time.

        Raises:
            InputError: for an image that cannot be read, when its turn comes.
        """
        self.method.eval()
        with torch.no_grad():
            text = self.method.encode_text()
        for start in range(0, len(images), batch_size):
            some = [Path(image) for image in images[start : start + batch_size]]
            for path, row in zip(some, self._probabilities(some, text), strict=True):
                yield path, self._labels(row)

    @torch.no_grad()
    def _probabilities(self, images: Sequence[Path], text: Tensor) -> Float[Tensor, "B C"]:
        pictures = [read_image(path) for path in images]
        patches, pooled = self._seen(self.backbone, pictures)
        views = {
            name: tokens_of(*self._seen(view.of(self.backbone), pictures), num_streams=view.num_streams)
            for name, view in self.method.views.items()
        }
        unknown = torch.full((len(images), len(self.class_names)), -1, dtype=torch.int8, device=pooled.device)
        return self.model(Batch(patches, pooled, unknown, views), text)

    def _seen(
        self, backbone: Backbone, pictures: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D"]]:
        """Features rounded as the stored ones are, so that an image scores the same here and in evaluate.

        ``backbone`` may be a view, whose preprocessing is its own.
        """
        pixels = torch.stack([backbone.preprocess(picture) for picture in pictures]).to(self.method.device)
        stored = getattr(torch, self.config.store_dtype)
        patches, pooled = (part.to(stored).float() for part in backbone.encode_image(pixels))
        return patches, pooled

    def _labels(self, row: Float[Tensor, " C"]) -> list[Label]:
        thresholds = torch.full_like(row, 0.5)
        shown = row
        if self.calibration is not None:
            thresholds = self.calibration.thresholds
            shown = self.calibration.calibrated(row[None])[0]
        present = (row > thresholds).tolist()
        order = shown.argsort(descending=True).tolist()
        return [Label(self.class_names[c], shown[c].item(), present[c]) for c in order]

    def features(self, split: Split, *, data: str, cache: Path, skip_corrupt: bool = False) -> FeatureSet:
        """Stored features of images, with all that the method reads of them; computed where they are not stored. Raises
        InputError as `fedmpt.data.features.store.open_features`."""
        return open_features(
            self.backbone,
            split,
            cache=cache,
            store_dtype=self.config.store_dtype,
            device=str(self.method.device),
            skip_corrupt=skip_corrupt,
            data=data,
            views=self.method.views,
        )

    def with_classes(self, names: Sequence[str]) -> Tagger:
        """A tagger for the run's classes and, behind them, new ones that training never saw, such as ``["zebra"]``.

        A new class starts as the method starts any class, mostly from its name. What training did to the trained
        classes on average is then done to it, see `fedmpt.inference.new_classes.grown_state`. Its threshold is 0.5. Its
        probability is calibrated by the means of the trained classes' scales and biases. Soft ties leave it as it is.
        Methods that compare classes within an image give the trained classes other probabilities than before.

        Raises:
            InputError: if a name is there already, given twice or too long for a prompt, or if the method cannot take
                new classes.
        """
        names = new_names(names, self.class_names)
        if not self.method.takes_new_classes:
            raise InputError(
                f"{self.config.method.name} cannot score {', '.join(names)}: what it learned holds for the run's "
                "classes alone; train with all classes, or with another method"
            )
        class_names, old = (*self.class_names, *names), self.model
        method, first = (
            self.config.method.build(self.backbone, some, generator=generator(self.config.seed, "init"))
            for some in (class_names, self.class_names)
        )
        if method.sources != self.method.sources:
            raise InputError(
                f"with {', '.join(names)}, {self.config.method.name} reads its texts from "
                f"{', '.join(method.sources)}, in training it was {', '.join(self.method.sources)}; train with one "
                "list of all classes, --attributes"
            )
        before, start = get_state(first), get_state(method)
        set_state(method, grown_state(get_state(self.method), before, start))
        model = FinalModel(
            method,
            method.split(get_state(method))[0],
            {client: grown_state(own, before, start) for client, own in old.personal.items()},
            method.split(start)[1],
            old.ties and grown_ties(old.ties, len(names)),
            old.strength,
        )
        calibration = self.calibration and grown_calibration(self.calibration, len(names))
        notes = (*self.notes, NEW_CLASSES.format(", ".join(names))) if calibration else self.notes
        return replace(self, class_names=class_names, model=model, calibration=calibration, notes=notes)

    def personal_scores(self, test: FeatureSet) -> dict[str, Any]:
        """Scores of the clients' own models, see `fedmpt.evaluation.final`; the method has personal tensors."""
        return self.model.personal_scores(self.client_names, test)


def load(run: Path | str, *, backbone: str | None = None, device: str = "cpu") -> Tagger:
    """The model of a run, from the folder of the run or from the checkpoint in it.

    ``backbone`` says where the frozen model is, if it is no longer where the run found it; ``device`` is ``cpu``,
    ``cuda`` or ``cuda:1``.

    Raises:
        InputError: if there is no checkpoint, it is damaged, or it was trained on another backbone.
    """
    folder = Path(run)
    inner = folder / "checkpoint"
    return load_trained(inner if inner.is_dir() else folder, backbone=backbone, device=device)


def load_trained(
    checkpoint: Path,
    *,
    backbone: str | None = None,
    device: str = "cpu",
    class_names: Sequence[str] | None = None,
    mix: float | None = None,
    soft_ties: float | None = None,
    ties: Ties | None = None,
) -> Tagger:
    """Build the method a checkpoint was trained with, on the backbone it names or the one given.

    ``mix``, ``soft_ties`` (see `Prediction`) and ``ties`` are those of the checkpoint unless given. Where one is given
    that is another than the checkpoint's, its calibration is not for these probabilities, and there is none.

    Raises:
        InputError: if the checkpoint is damaged, or of other classes, another method or another backbone; if ``mix``
            or ``soft_ties`` is out of range, or there are no counts of labels to make ties of.
    """
    if not (checkpoint / "checkpoint.json").exists() and (checkpoint / "checkpoint").is_dir():
        raise InputError(f"{checkpoint} is the folder of a run; give the checkpoint in it, {checkpoint / 'checkpoint'}")
    trained = load_checkpoint(checkpoint)
    record = trained.record
    config = RunConfig.from_json(record["config"], source=f"{checkpoint}/checkpoint.json")
    names = tuple(record["class_names"])
    frozen = load_backbone(backbone or config.backbone, device=device, dtype=DTYPES[config.dtype])
    check_record(record, frozen, class_names, source=str(checkpoint))
    check_revision(record, config.method.revision, source=str(checkpoint))
    method = config.method.build(frozen, names, generator=generator(config.seed, "init"))
    check_sources(record, method.sources, source=str(checkpoint))
    stored = load_prediction(checkpoint, names, otherwise=config.prediction)
    given = {name: value for name, value in (("mix", mix), ("soft_ties", soft_ties)) if value is not None}
    options = replace(stored.options, **given)
    options.check()
    fits = options == stored.options and ties is None
    notes = [] if fits or stored.calibration is None else [UNCALIBRATED]
    if ties is None and options.soft_ties:
        ties = load_ties(checkpoint / stored.counts, names)
    kept = trained.progress.kept(config.federation)
    model = FinalModel.of(
        method, get_state(method), kept.state, kept.personal, options=options, ties=ties, source=str(checkpoint)
    )
    if (own := kept.personal.get(record.get("site", -1))) is not None:  # At a site of a federation: its own model.
        set_state(method, {**model.shared, **own}, source=str(checkpoint))
    # Checkpoints of before any method had personal tensors do not name the clients.
    clients = tuple(record.get("clients", ()))
    return Tagger(config, frozen, names, options, model, stored.calibration if fits else None, clients, tuple(notes))
