"""Fetch the pictograms of the data set `scenes` from the npm registry into the package. For maintainers; needs npm.

    python scripts/fetch_pictograms.py

Every picture is cropped to what is drawn, centred on a transparent square and scaled to 64 pixels, so that a size in
pixels means the same in every style. Licences and credits are in src/fedmpt/assets/pictograms/LICENSES.md; keep that
file true when changing packages here.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

OUT = Path(__file__).resolve().parents[1] / "src" / "fedmpt" / "assets" / "pictograms"
SIZE = 64
# Below this alpha a pixel is shadow or the rim of anti-aliasing, and no part of the object's extent.
OPAQUE = 32


@dataclass(frozen=True)
class Style:
    """An npm package, and where in it the picture of a code point lies."""

    package: str
    member: str


STYLES = {
    "noto": Style("emoji-datasource-google@16.0.0", "package/img/google/64/{code}.png"),
    "twemoji": Style("emoji-datasource-twitter@16.0.0", "package/img/twitter/64/{code}.png"),
    "fluent": Style("@lobehub/fluent-emoji-3d@1.1.0", "package/assets/{code}.webp"),
}

CLASSES = {
    "airplane": "2708-fe0f",
    "apple": "1f34e",
    "ball": "26bd",
    "bicycle": "1f6b2",
    "bird": "1f426",
    "boat": "26f5",
    "book": "1f4d6",
    "bottle": "1f37e",
    "bus": "1f68c",
    "car": "1f697",
    "cat": "1f408",
    "chair": "1fa91",
    "clock": "23f0",
    "cow": "1f404",
    "cup": "2615",
    "dog": "1f415",
    "duck": "1f986",
    "fish": "1f41f",
    "guitar": "1f3b8",
    "horse": "1f40e",
    "laptop": "1f4bb",
    "pizza": "1f355",
    "potted plant": "1fab4",
    "sheep": "1f411",
    "sofa": "1f6cb-fe0f",
    "television": "1f4fa",
    "train": "1f682",
    "umbrella": "2614",
}

DISTRACTORS = {
    "balloon": "1f388",
    "butterfly": "1f98b",
    "candle": "1f56f-fe0f",
    "gift": "1f381",
    "hammer": "1f528",
    "hat": "1f3a9",
    "key": "1f511",
    "mushroom": "1f344",
    "scissors": "2702-fe0f",
    "shoe": "1f45f",
    "traffic light": "1f6a6",
    "trophy": "1f3c6",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for one folder of pictures a style")
    arguments = parser.parse_args()
    for name, style in STYLES.items():
        with tempfile.TemporaryDirectory() as folder:
            package = download(style.package, Path(folder))
            num_bytes = extract(package, style, arguments.out / name)
        print(f"{name}: {len(CLASSES | DISTRACTORS)} pictures of {style.package}, {num_bytes / 1000:.0f} kB")


def download(package: str, folder: Path) -> Path:
    """The package's archive; npm checks it against the registry's hash."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    return archive


def extract(package: Path, style: Style, out: Path) -> int:
    """Write all pictures of a style into ``out``, or none if one is missing; returns their size in bytes."""
    wanted = {style.member.format(code=code): name for name, code in (CLASSES | DISTRACTORS).items()}
    pictures: dict[str, bytes] = {}
    with tarfile.open(package) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name in wanted else None
            if content is not None:
                pictures[wanted[member.name]] = prepare(content.read())
    missing = set(wanted.values()) - pictures.keys()
    if missing:
        raise SystemExit(f"{style.package} has no picture of: {', '.join(sorted(missing))}")
    out.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (out / f"{name.replace(' ', '_')}.png").write_bytes(png)
    return sum(map(len, pictures.values()))


def prepare(encoded: bytes) -> bytes:
    """A picture of any size, cropped, centred on a square and scaled, as PNG."""
    image = Image.open(io.BytesIO(encoded)).convert("RGBA")
    box = image.getchannel("A").point([255 * (alpha >= OPAQUE) for alpha in range(256)]).getbbox()
    drawn = image.crop(box)
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    out = io.BytesIO()
    square.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(out, format="PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
