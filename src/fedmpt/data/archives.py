"""The archives of benchmark sets at their official addresses: their lengths, checksums and licences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A tar or zip file that holds one part of a data set; unpacked it is ``unpacked_ratio`` times as large at most."""

    part: str
    url: str
    size_bytes: int
    sha256: str
    unpacked_ratio: float = 1.1  # JPEG files hardly shrink.

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Source:
    """All archives of a data set, which is read as ``reader:FOLDER``. What lies below ``root`` in them is unpacked."""

    reader: str
    root: str
    licence: str
    archives: tuple[Archive, ...]


# Lengths and SHA-256 sums as in TensorFlow Datasets (url_checksums/voc.txt, coco.txt) and torchvision. Neither host
# offers https under its own name, so the sum is also what protects the files on their way.
_VOC, _COCO = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/", "http://images.cocodataset.org/"
_TRAINVAL = "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508"
_TEST = "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892"
_ANNOTATIONS = "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"
_VAL = "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"
_TRAIN = "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"
SOURCES: dict[str, Source] = {
    "voc2007": Source(
        "voc",
        "VOCdevkit",
        "VOC 2007: the photos come from Flickr and are subject to its terms of use; the set is meant for research. "
        f"See {_VOC}",
        (
            Archive("trainval", f"{_VOC}VOCtrainval_06-Nov-2007.tar", 460_032_000, _TRAINVAL, 1.0),
            Archive("test", f"{_VOC}VOCtest_06-Nov-2007.tar", 451_020_800, _TEST, 1.0),
        ),
    ),
    "coco2014": Source(
        "coco",
        "",
        "COCO 2014: the annotations are under CC BY 4.0; the photos come from Flickr and are subject to its terms "
        "of use. See https://cocodataset.org/#termsofuse",
        (
            Archive("annotations", f"{_COCO}annotations/annotations_trainval2014.zip", 252_872_794, _ANNOTATIONS, 3.4),
            Archive("val", f"{_COCO}zips/val2014.zip", 6_645_013_297, _VAL),
            Archive("train", f"{_COCO}zips/train2014.zip", 13_510_573_713, _TRAIN),
        ),
    ),
}
"""Every data set that can be downloaded, by the name users give."""
