"""What all pictures of numbers have in common: how they look, which formats there are, and how they are written."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

from fedmpt.files import write_atomically
from fedmpt.types import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
GREY, BLUE, ORANGE = "#8a8f98", "#1f6fb2", "#d9822b"

_STYLE: Any = {  # matplotlib declares another type of key in each version.
    "svg.fonttype": "none",
    "svg.hashsalt": "fedmpt",
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "xtick.color": "#3c4048",
    "ytick.color": "#3c4048",
    "text.parse_math": False,  # A class may be called "$5 note".
}
_LABEL_SPACING = 0.13
"""Inches from one label to the next."""
_MAX_NAME = 28


def check_plot(path: Path) -> None:
    """Raises InputError if a picture cannot be written: the name has another end, or matplotlib is missing."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a plot is written as {', '.join(SUFFIXES)}; give a name with one of these ends")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("plots need matplotlib; install it with: pip install 'fedmpt[report]'") from None


def write_plot(path: Path, draw: Callable[[Figure], None]) -> None:
    """Write what ``draw`` puts into a figure, in the format that the name ends in. Raises InputError as `check_plot`,
    or if the file cannot be written."""
    check_plot(path)
    content = rendered(draw, path.suffix.lower()[1:], dpi=160, bbox_inches="tight")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def rendered(draw: Callable[[Figure], None], kind: str, **options: Any) -> bytes:
    """What ``draw`` puts into a figure as png, svg or pdf; the same drawing gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = BytesIO()
    with rc_context(_STYLE), catch_warnings():
        figure = Figure()
        draw(figure)
        # A letter that the font lacks is a box in the picture; an .svg keeps it as text.
        filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def labelled(count: int, length: float) -> list[int]:
    """Which of ``count`` cells along ``length`` inches have room for a label: every one, or every 2nd, 5th, 10th ..."""
    needed = count * _LABEL_SPACING / length
    step = next(size * 10**power for power in range(9) for size in (1, 2, 5) if size * 10**power >= needed)
    return list(range(0, count, step))


def shortened(name: str) -> str:
    """A name of at most 28 characters in one line. It loses its middle: names of one kind often differ at the end."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable if len(printable) <= _MAX_NAME else f"{printable[:15]}…{printable[-12:]}"
