"""Small archives laid out as the official ones."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from tiny_voc import write_tiny_voc

from fedmpt.data.archives import Archive, Source

VOC_PATH = "/pascal/VOC/voc2007/"


def archive_of(content: bytes, name: str, part: str, *, unpacked_bytes: int = 0) -> Archive:
    """The entry of a table for an archive with this content."""
    url, digest = f"http://official.invalid{VOC_PATH}{name}", hashlib.sha256(content).hexdigest()
    return Archive(part, url, len(content), digest, unpacked_ratio=max(unpacked_bytes, len(content)) / len(content))


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def tiny_voc_source(folder: Path) -> tuple[Source, dict[str, bytes]]:
    """VOC 2007 in two tars, and those by their paths on a server."""
    root = write_tiny_voc(folder / "VOCdevkit") / "VOC2007"
    parts: dict[str, dict[str, bytes]] = {part: {"VOCdevkit/VOC2007/": b""} for part in ("trainval", "test")}
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        part = "test" if file.stem == "test" or file.stem.startswith("0005") else "trainval"
        parts[part][f"VOCdevkit/{file.relative_to(root.parent).as_posix()}"] = file.read_bytes()
    contents = {part: tar_of(files) for part, files in parts.items()}
    archives = tuple(archive_of(contents[part], f"VOC{part}.tar", part) for part in parts)
    source = Source("voc", "VOCdevkit", "terms of voc", archives)
    return source, {f"{VOC_PATH}VOC{part}.tar": contents[part] for part in parts}


def tiny_coco_source() -> tuple[Source, dict[str, bytes]]:
    """COCO 2014 in three zips."""
    files: dict[str, dict[str, bytes]] = {"annotations": {}, "val": {}, "train": {}}
    for split in ("train", "val"):
        names = [f"COCO_{split}2014_{number:012d}.jpg" for number in range(1, 4)]
        files[split] = {f"{split}2014/{name}": _jpeg() for name in names}
        instances = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
            "annotations": [{"id": k, "image_id": k % 3, "category_id": 1 + k % 2} for k in range(4)],
            "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        }
        files["annotations"][f"annotations/instances_{split}2014.json"] = json.dumps(instances).encode()
    contents = {part: zip_of(files[part]) for part in files}
    archives = tuple(
        archive_of(contents[part], f"{part}.zip", part, unpacked_bytes=sum(map(len, files[part].values())))
        for part in files
    )
    return Source("coco", "", "terms of coco", archives), {f"{VOC_PATH}{part}.zip": contents[part] for part in files}


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 20, 30)).save(buffer, "JPEG")
    return buffer.getvalue()
