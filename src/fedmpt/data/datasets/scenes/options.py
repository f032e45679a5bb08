"""The dials of `scenes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fedmpt.data.datasets.scenes.vocabulary import STYLES
from fedmpt.data.reading import check_choice
from fedmpt.types import InputError

SplitName = Literal["train", "test"]
TestMode = Literal["natural", "broken", "reversed"]

# Eight digits name an image file, and a seed is one word of PCG64's seeding.
MAX_IMAGES = 10**8
MAX_SEED = 2**32 - 1
MAX_GROUPS = 10_000


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """What decides the images.

    ``spurious``, in [0, 1], is the share of training images with an anchor in which the anchor's partner and their
    background come along because of it; 0 is the natural world.
    ``test`` is the world of the test images: ``"natural"``; ``"broken"``, where objects and background have nothing
    to do with each other; ``"reversed"``, where no anchor is ever with its partner or before their background.
    ``shift``, in [0, 1], is how far the factors of each of the ``groups`` of images are from being the same for all:
    at 1 a group has one style, background, lighting, weather, layout, pose and scale.
    ``styles`` are the drawing styles in use.

    Raises:
        InputError: if a value is out of range or unknown.
    """

    num_train: int = 2000
    num_test: int = 1000
    seed: int = 0
    spurious: float = 0.0
    test: TestMode = "natural"
    shift: float = 0.0
    groups: int = 10
    styles: tuple[str, ...] = STYLES

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_train", 1, MAX_IMAGES),
            ("num_test", 1, MAX_IMAGES),
            ("seed", 0, MAX_SEED),
            ("spurious", 0, 1),
            ("shift", 0, 1),
            ("groups", 1, MAX_GROUPS),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"scenes: {name} is {value}; it must be from {low} to {high}")
        check_choice("scenes: test", self.test, get_args(TestMode))
        for style in self.styles:
            check_choice("scenes: styles", style, STYLES)
        if not self.styles or len(set(self.styles)) < len(self.styles):
            given = "+".join(self.styles)
            raise InputError(f"scenes: styles is {given!r}; name each once, of: {'+'.join(STYLES)}")
