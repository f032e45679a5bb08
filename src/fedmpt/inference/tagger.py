"""A trained model as an object that tags images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedmpt.inference.predict import Label, Trained, load_trained, predict


class Tagger:
    """Tags images with the classes that a run was trained for. `load` makes one from a run.

    ``trained`` holds all that the checkpoint says: the config, the method, thresholds, clients.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.trained.class_names

    def tag(self, images: Sequence[Path | str], *, batch_size: int = 16) -> Iterator[tuple[Path, list[Label]]]:
        """Each image file with a `Label` for every class, the most probable first.

        A label has ``name``, ``probability`` in [0, 1], calibrated where the run could, and ``present``, whether it is
        over its class's threshold. Images are opened as they are asked for, ``batch_size`` at a time.

        Raises:
            InputError: for an image that cannot be read, when its turn comes.
        """
        return predict(self.trained, [Path(image) for image in images], batch_size=batch_size)


def load(run: Path | str, *, backbone: str | None = None, device: str = "cpu") -> Tagger:
    """The model of a run, from the folder of the run or from the checkpoint in it.

    ``backbone`` says where the frozen model is, if it is no longer where the run found it; ``device`` is ``cpu``,
    ``cuda`` or ``cuda:1``.

    Raises:
        InputError: if there is no checkpoint, it is damaged, or it was trained on another backbone.
    """
    folder = Path(run)
    inner = folder / "checkpoint"
    return Tagger(load_trained(inner if inner.is_dir() else folder, backbone=backbone, device=device))
