"""The archives of benchmark sets: official address, length and checksum of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fedmpt.data.reading import closest
from fedmpt.types import InputError


@dataclass(frozen=True)
class Archive:
    """A tar or zip file that holds one part of a data set.

    ``unpacked_bytes`` is the most its files may need; more is taken for an attack. What is unpacked is what lies below
    the archive's folder ``root``, or everything if that is empty.
    """

    part: str
    url: str
    size_bytes: int
    sha256: str
    unpacked_bytes: int
    root: str = ""

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    def addresses(self, mirror: str | None) -> list[str]:
        """Where to look, first place first: below a mirror, under the official path and by the bare name."""
        if mirror is None:
            return [self.url]
        return [mirror.rstrip("/") + urlsplit(self.url).path, f"{mirror.rstrip('/')}/{self.file_name}"]


@dataclass(frozen=True)
class Source:
    """All archives of a data set. ``reader`` is the name that the unpacked folder is read by, as in ``voc:DIR``."""

    reader: str
    licence: str
    archives: tuple[Archive, ...]

    def select(self, parts: Sequence[str]) -> tuple[Archive, ...]:
        """The archives of the named parts, of all if none is named, in the order of the table.

        Raises:
            InputError: if there is no such part.
        """
        known = [archive.part for archive in self.archives]
        for part in parts:
            if part not in known:
                raise InputError(f"unknown part {part!r}{closest(part, known)}; parts are: {', '.join(known)}")
        return tuple(archive for archive in self.archives if not parts or archive.part in parts)


# Lengths and SHA-256 sums: TensorFlow Datasets, tensorflow_datasets/url_checksums/voc.txt and coco.txt. The same sums
# stand in torchvision, torchvision/prototype/datasets/_builtin/voc.py and coco.py, for the addresses used here.
# Neither host offers https under its own name, so the sum is also what protects the files on their way.
SOURCES: dict[str, Source] = {
    "voc2007": Source(
        reader="voc",
        licence=(
            "VOC 2007: the photos come from Flickr and are subject to its terms of use; the set is meant for research. "
            "See http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"
        ),
        archives=(
            Archive(
                part="trainval",
                url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                size_bytes=460_032_000,
                sha256="7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
                unpacked_bytes=460_032_000,  # A tar compresses nothing.
                root="VOCdevkit",
            ),
            Archive(
                part="test",
                url="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
                size_bytes=451_020_800,
                sha256="6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
                unpacked_bytes=451_020_800,
                root="VOCdevkit",
            ),
        ),
    ),
    "coco2014": Source(
        reader="coco",
        licence=(
            "COCO 2014: the annotations are under CC BY 4.0; the photos come from Flickr and are subject to its terms "
            "of use. See https://cocodataset.org/#termsofuse"
        ),
        archives=(
            Archive(
                part="annotations",
                url="http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
                size_bytes=252_872_794,
                sha256="031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
                unpacked_bytes=850_000_000,  # Its directory says 844,813,048.
            ),
            Archive(
                part="val",
                url="http://images.cocodataset.org/zips/val2014.zip",
                size_bytes=6_645_013_297,
                sha256="fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
                unpacked_bytes=7_300_000_000,  # JPEG files hardly shrink in a zip; a tenth more is room enough.
            ),
            Archive(
                part="train",
                url="http://images.cocodataset.org/zips/train2014.zip",
                size_bytes=13_510_573_713,
                sha256="ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
                unpacked_bytes=14_900_000_000,
            ),
        ),
    ),
}
"""Every data set that can be downloaded, by the name users give."""


def find_source(name: str, sources: Mapping[str, Source] = SOURCES) -> Source:
    """The data set ``name``.

    Raises:
        InputError: if there is none.
    """
    if name not in sources:
        raise InputError(f"unknown data set {name!r}{closest(name, sources)}; there are: {', '.join(sources)}")
    return sources[name]
