"""What `load_backbone` takes a spec for, and the devices and dtypes it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedmpt.backbone import load_backbone
from fedmpt.backbone.load import Source, parse_spec
from fedmpt.types import Backbone, InputError


def error_of(spec: str | Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(str(spec), **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("openai/clip-vit-base-patch16", Source("hub", "openai/clip-vit-base-patch16")),
        ("my_clip.v2", Source("hub", "my_clip.v2")),
        ("backbone.py:load", Source("plugin", "backbone.py", "load")),
        ("../dir with: colon/backbone.py:load", Source("plugin", "../dir with: colon/backbone.py", "load")),
        (r"C:\models\backbone.py:load", Source("plugin", r"C:\models\backbone.py", "load")),
        ("c:/models/backbone.py:load", Source("plugin", "c:/models/backbone.py", "load")),
        ("package.module:load", Source("plugin", "package.module", "load")),
        ("m:load", Source("plugin", "m", "load")),
    ],
)
def test_spec_is_read_in_the_documented_order(spec: str, expected: Source) -> None:
    assert parse_spec(spec) == expected


@pytest.mark.parametrize("name", ["openai/clip", "module:load", "backbone.py:load", "C:"])
def test_a_folder_that_exists_comes_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_spec(name) == Source("folder", name)


@pytest.mark.parametrize("spec", ["./clip", "/no/where", "~/no_such_clip", r"C:\clip", "c:/clip", "a/b/c"])
def test_what_can_only_be_a_path_is_not_sought_on_the_hub(spec: str) -> None:
    assert "no such folder" in error_of(spec)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("", "cannot be a hub id"),
        ("package.module:", "neither file.py:function nor"),
        ("package.module:load()", "neither file.py:function nor"),
        ("not-a-module:load", "neither file.py:function nor"),
        ("https://example.org/clip", "neither file.py:function nor"),
        ("open ai/clip", "cannot be a hub id"),
    ],
)
def test_a_spec_of_no_form_names_the_forms(spec: str, part: str) -> None:
    message = error_of(spec)
    assert part in message
    assert "file.py:function" in message


def test_a_file_instead_of_its_folder_or_function(tiny_clip_folder: Path, tmp_path: Path) -> None:
    assert f"is a file, not a folder; give {tiny_clip_folder}" in error_of(tiny_clip_folder / "model.safetensors")
    plugin = tmp_path / "plugin.py"
    plugin.touch()
    assert f"append the function that makes it: {plugin}:load" in error_of(plugin)


def test_a_tiny_clip_folder_gives_a_backbone(tiny_clip_folder: Path) -> None:
    assert isinstance(load_backbone(str(tiny_clip_folder)), Backbone)


def test_importing_it_leaves_transformers_alone() -> None:
    code = "import sys, fedmpt.backbone; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_is_not_there(tiny_clip_folder: Path, device: str) -> None:
    message = error_of(tiny_clip_folder, device=device)
    assert f"device {device!r} cannot be used" in message
    assert "here there is cpu" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tiny_clip_folder: Path) -> None:
    assert "device 'cuda' cannot be used" in error_of(tiny_clip_folder, device="cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8])
def test_a_dtype_that_is_not_offered(tiny_clip_folder: Path, dtype: torch.dtype) -> None:
    assert "torch.float32 or torch.bfloat16" in error_of(tiny_clip_folder, dtype=dtype)
