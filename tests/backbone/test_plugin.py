"""Backbones that users bring: found, checked, frozen, moved, and every way in which that fails."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from fedmpt.backbone import load_backbone
from fedmpt.backbone.clip_files import load_clip
from fedmpt.backbone.plugin import MovedPlugin, find_factory, load_plugin
from fedmpt.types import Backbone, InputError

PLUGIN = """
import torch
from torch import nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

FOLDER = {folder!r}
IMAGE_DTYPES = []


class Tower:
    name = "own"
    image_size = 8
    logit_scale = 20.0
    note = "beyond the protocol"

    def __init__(self):
        self.tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
        self.text_model = CLIPTextModelWithProjection(CLIPTextModelWithProjection.config_class(
            vocab_size=600, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            projection_dim=8))
        self.vision = nn.Sequential(nn.Dropout(), nn.Conv2d(3, 8, 4, 4, dtype=torch.float64)).train()

    def preprocess(self, image):
        return torch.full((3, 8, 8), float(image.width))

    def encode_image(self, pixels):
        patches = self.vision(pixels.double()).flatten(2).transpose(1, 2)
        return patches, patches.mean(1)


def load():
    return Tower()


def load_later():
    raise KeyError("weights")


class NoBackbone:
    name = None
    image_size = 8.5
    logit_scale = "100"
    preprocess = 3

"""


@pytest.fixture
def plugin_file(tiny_clip_folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "own_backbone.py"
    file.write_text(PLUGIN.format(folder=str(tiny_clip_folder)))
    return file


def error_of(spec: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_backbone(spec)
    return caught.value


def test_its_own_object_comes_back_frozen(plugin_file: Path) -> None:
    backbone = load_backbone(f"{plugin_file}:load")
    assert type(backbone).__name__ == "Tower"
    assert isinstance(backbone, Backbone)
    for module in (backbone.text_model, backbone.vision):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(part.training for part in module.modules())


def test_a_module_on_the_path(plugin_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = plugin_file.parent / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    plugin_file.rename(package / "own_module.py")
    monkeypatch.syspath_prepend(plugin_file.parent)
    assert load_backbone("own_package.own_module:load").name == "own"


def test_bfloat16_is_for_the_text_tower_alone(plugin_file: Path) -> None:
    exact, moved = load_backbone(f"{plugin_file}:load"), load_backbone(f"{plugin_file}:load", dtype=torch.bfloat16)
    assert isinstance(moved, MovedPlugin)
    assert isinstance(moved, Backbone)
    assert {parameter.dtype for parameter in moved.text_model.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in moved.plugin.vision.parameters()} == {torch.float64}
    moved.plugin.vision.load_state_dict(exact.vision.state_dict())
    pixels = torch.rand(2, 3, 8, 8)
    for ours, own in zip(moved.encode_image(pixels), exact.encode_image(pixels), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, own.float())
    assert moved.preprocess(Image.new("RGB", (5, 5)))[0, 0, 0] == 5
    assert (moved.name, moved.image_size, moved.logit_scale, moved.note) == ("own", 8, 20.0, "beyond the protocol")
    with pytest.raises(AttributeError, match="no_such_member"):
        _ = moved.no_such_member


def test_a_moved_plugin_survives_pickling(plugin_file: Path) -> None:
    moved = load_backbone(f"{plugin_file}:load", dtype=torch.bfloat16)
    copy = pickle.loads(pickle.dumps(moved))
    pixels = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(copy.encode_image(pixels), moved.encode_image(pixels))


# The meta device holds shapes only, so it shows on any machine what moves where.
META = torch.device("meta")


def test_all_its_modules_and_the_pixels_are_moved(plugin_file: Path) -> None:
    factory = find_factory(str(plugin_file), "load")
    moved = load_plugin(factory, spec="own", device=META, dtype=torch.float32)
    assert {parameter.device for parameter in moved.text_model.parameters()} == {META}
    patches, pooled = moved.encode_image(torch.rand(2, 3, 8, 8))
    assert (patches.device, pooled.device) == (META, META)


def test_clip_towers_and_pixels_are_moved(tiny_clip_folder: Path) -> None:
    folder = tiny_clip_folder
    moved = load_clip(folder, weights=folder, name="tiny", device=META, dtype=torch.bfloat16)
    tensors = (*moved.text_model.parameters(), *moved.text_model.buffers(), *moved.image_blocks.parameters())
    assert {tensor.device for tensor in tensors} == {META}
    patches, pooled = moved.encode_image(torch.rand(2, 3, 32, 32))
    assert (patches.device, patches.dtype, pooled.device) == (META, torch.float32, META)


def test_a_module_that_is_itself_the_backbone(plugin_file: Path) -> None:
    with plugin_file.open("a") as file:
        file.write(
            "class Whole(Tower, nn.Module):\n"
            "    def __init__(self):\n"
            "        nn.Module.__init__(self)\n"
            "        Tower.__init__(self)\n"
        )
    backbone = load_backbone(f"{plugin_file}:Whole")
    assert not backbone.training
    assert not backbone.vision.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the plug-in's own
def test_the_real_small_one(shared: Path) -> None:
    spec = f"{shared / 'photo_vlm' / 'backbone.py'}:load"
    backbone = load_backbone(spec)
    assert backbone.name == "photo-vlm-efflite0"
    pixels = backbone.preprocess(Image.radial_gradient("L").resize((300, 200)))[None]
    patches, pooled = backbone.encode_image(pixels)
    assert patches.shape == (1, 49, 256)
    half = load_backbone(spec, dtype=torch.bfloat16)
    torch.testing.assert_close(half.encode_image(pixels), (patches, pooled))
    tokens = backbone.tokenizer(["a photo of a dog"], return_tensors="pt")
    exact, rough = (tower.text_model(**tokens).text_embeds.float() for tower in (backbone, half))
    assert torch.cosine_similarity(rough, exact).item() > 0.99


def test_a_missing_file(tmp_path: Path) -> None:
    assert f"no file {tmp_path / 'none.py'}" in str(error_of(f"{tmp_path / 'none.py'}:load"))


@pytest.mark.parametrize(
    ("module", "missing"), [("no_such_package.part", "no_such_package"), ("json.no_such_part", "json.no_such_part")]
)
def test_a_missing_module(module: str, missing: str) -> None:
    message = str(error_of(f"{module}:load"))
    assert f"no module {missing!r}" in message
    assert "file.py:function" in message


def test_a_missing_function_lists_the_files_own(plugin_file: Path) -> None:
    message = str(error_of(f"{plugin_file}:laod"))
    assert str(plugin_file) in message
    assert "it has NoBackbone, Tower, load, load_later" in message


def test_a_file_without_functions(tmp_path: Path) -> None:
    (tmp_path / "empty.py").touch()
    assert "no function at all" in str(error_of(f"{tmp_path / 'empty.py'}:load"))


def test_a_function_that_raises_is_chained_and_placed(plugin_file: Path) -> None:
    error = error_of(f"{plugin_file}:load_later")
    line = plugin_file.read_text().splitlines().index('    raise KeyError("weights")') + 1
    assert f"{plugin_file}, line {line}" in str(error)
    assert "KeyError: 'weights'" in str(error)
    assert isinstance(error.__cause__, KeyError)


def test_the_place_is_the_plugins_line_not_the_librarys(tmp_path: Path) -> None:
    file = tmp_path / "deep.py"
    file.write_text("import json\ndef load():\n    return json.loads('{')\n")
    assert f"{file}, line 3" in str(error_of(f"{file}:load"))


@pytest.mark.parametrize(
    ("code", "line", "kind"),
    [
        ("x = 1\nx / 0\n", 2, ZeroDivisionError),
        ("def load(:\n", 1, SyntaxError),
        ("import no_such_m\n", 1, ImportError),
    ],
)
def test_a_file_that_cannot_run(tmp_path: Path, code: str, line: int, kind: type[Exception]) -> None:
    file = tmp_path / "broken.py"
    file.write_text(code)
    before = set(sys.modules)
    error = error_of(f"{file}:load")
    assert f"{file}, line {line}" in str(error)
    assert isinstance(error.__cause__, kind)
    assert not [name for name in set(sys.modules) - before if "broken" in name]


@pytest.mark.parametrize("code", ["import no_such_library\n", "1 / 0\n"])
def test_a_module_whose_import_fails_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "half_installed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    message = str(error_of("half_installed:load"))
    assert "half_installed.py, line 1" in message
    assert "importing half_installed raised" in message


def test_every_wrong_member_is_named(plugin_file: Path) -> None:
    message = str(error_of(f"{plugin_file}:NoBackbone"))
    for part in (
        "name is of type NoneType (wanted: str)",
        "image_size is of type float (wanted: int)",
        "logit_scale is of type str (wanted: float)",
        "tokenizer is missing",
        "text_model is missing",
        "preprocess is of type int (wanted: method)",
        "encode_image is missing",
    ):
        assert part in message


def test_a_function_that_returns_nothing(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("def load():\n    pass\n")
    assert "returned a NoneType that is no backbone" in str(error_of(f"{tmp_path / 'nothing.py'}:load"))


def test_two_files_of_one_name_stay_apart(plugin_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / plugin_file.name
    other.parent.mkdir()
    other.write_text(plugin_file.read_text().replace('"own"', '"other"'))
    assert [load_backbone(f"{file}:load").name for file in (plugin_file, other)] == ["own", "other"]
