"""The words everything else uses.

Axis letters, the same in every file:

=====  ==========================================================
``B``  images of a batch
``M``  patches of an image
``C``  classes
``N``  conditions (or, more generally, prompts a class has)
``D``  width of the joint image-text embedding space
``W``  width of the text tower (its token embeddings)
``V``  width of the image tower
``T``  tokens in the image tower: the class token and the patches
``S``  streams of tokens of an image, see `fedmpt.backbone.views`
=====  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float, Int8
from torch import Tensor, nn

from fedmpt.errors import DivergedError as DivergedError
from fedmpt.errors import InputError as InputError

if TYPE_CHECKING:
    from PIL import Image

State = Mapping[str, Tensor]
"""What travels: the trained tensors of a method by name, nothing of the frozen model."""

Pair = tuple[int, int]
"""Class indices of a context and a target, see `fedmpt.data.pairs`."""

PRESENT, ABSENT, UNKNOWN = 1, 0, -1
"""The three values of a label. Unknown labels carry no loss and no score."""


def check_options(options: object, interval: str, *names: str) -> None:
    """Raises InputError, naming the flag, for an option outside ``interval``, such as ``"[0, 1)"``; None is none."""
    least, most = map(float, interval[1:-1].split(","))
    words = {"(0, inf)": "be positive", "[0, inf)": "not be negative"}.get(interval, f"be in {interval}")
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        is_above = value >= least if interval.startswith("[") else value > least
        is_below = value <= most if interval.endswith("]") else value < most
        if not (is_above and is_below):
            raise InputError(f"--{name.replace('_', '-')} must {words}, got {value}")


@dataclass(frozen=True)
class Split:
    """Images with labels, before any of them is opened.

    ``labels`` holds `PRESENT`, `ABSENT` or `UNKNOWN`, one row a file. ``columns`` holds what else is known of each
    image, as words, one an image: ``{"hospital": ("A", "B", "A")}``. Where all images come from the splits ``pool``,
    features are computed for those once and shared by everything that is taken from them.
    """

    name: str
    files: tuple[Path, ...]
    labels: Int8[Tensor, "images C"]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pool: tuple[Split, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: Sequence[int], *, name: str | None = None) -> Split:
        """Some of the images, in this order."""
        columns = {column: tuple(words[row] for row in rows) for column, words in self.columns.items()}
        files = tuple(self.files[row] for row in rows)
        return Split(name or self.name, files, self.labels[list(rows)], columns, self.pool)


@dataclass(frozen=True)
class ImageData:
    """A multi-label data set. ``class_names`` are as they stand in prompts: ``"dining table"``.

    ``client_column`` is the column of ``train`` that says whose each image is, where the data come from several
    sites. ``notes`` are what a user should hear about the data: a class without positives, pictures in both splits.
    ``pairs`` are those whose tie `fedmpt.data.ties` has cut; ``uncut`` are the data before, and ``recut`` cuts others
    of them in the same way.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    client_column: str | None = None
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    uncut: ImageData | None = None
    recut: Callable[[ImageData], ImageData] | None = None


@dataclass(frozen=True)
class Batch:
    """What a method sees of some images: features of the frozen image tower, and labels.

    Features are in the text tower's space and not normalised. ``views`` holds what a method reads of the images
    beside that, by its own names: streams of tokens [B, S, T, V], each with the class token first. ``weights`` says how
    much each label counts in a loss, in (0, inf), one on average; None: all the same.
    """

    patches: Float[Tensor, "B M D"]
    pooled: Float[Tensor, "B D"]
    labels: Int8[Tensor, "B C"]
    views: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Float[Tensor, "B C"] | None = None

    def __len__(self) -> int:
        return self.patches.shape[0]


@runtime_checkable
class Tokenizer(Protocol):
    """What is used of transformers' CLIPTokenizer, whose import takes seconds."""

    bos_token_id: int
    eos_token_id: int

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, Any]:
        """Token ids under ``"input_ids"``."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A frozen vision-language model.

    ``name`` enters hashes and records, ``logit_scale`` is the factor on cosines (100 for CLIP), ``text_model`` is
    transformers' CLIPTextModelWithProjection.
    """

    name: str
    image_size: int
    logit_scale: float

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def text_model(self) -> nn.Module: ...

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """One picture of any size and mode to what `encode_image` takes."""
        ...

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
        """Patch features and pooled feature, in the text tower's space, not normalised, no gradient."""
        ...
