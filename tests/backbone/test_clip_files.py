"""CLIP folders and hub models: what loads, and what is said of every one that must not."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fedmpt.backbone import load_backbone
from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.types import InputError

HUB_ID = "someone/some-clip"


@pytest.fixture
def folder(tiny_clip_folder: Path, tmp_path: Path) -> Path:
    """A CLIP folder to break."""
    return Path(shutil.copytree(tiny_clip_folder, tmp_path / "my-clip"))


def load_clip(spec: str | Path) -> ClipBackbone:
    backbone = load_backbone(str(spec))
    assert isinstance(backbone, ClipBackbone)
    return backbone


def error_of(spec: str | Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(str(spec), **options)
    return str(caught.value)


def edit_weights(folder: Path, edit: Callable[[dict], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_name_is_the_folder_as_the_user_wrote_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    names = [load_backbone(spec).name for spec in (str(folder), f"{folder}/", str(tmp_path / "link"), ".")]
    assert names == ["my-clip", "my-clip", "link", "my-clip"]


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("config.json", "lacks config.json"),
        ("preprocessor_config.json", "lacks preprocessor_config.json"),
        ("vocab.json", "lacks the tokenizer"),
        ("merges.txt", "lacks the tokenizer"),
        ("model.safetensors", "lacks the weights (model.safetensors)"),
    ],
)
def test_a_missing_file_is_named(folder: Path, file: str, part: str) -> None:
    (folder / file).unlink()
    message = error_of(folder)
    assert part in message
    assert str(folder) in message


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    message = error_of(tmp_path)
    for part in ("config.json", "preprocessor_config.json", "the tokenizer", "the weights"):
        assert part in message


def test_pickled_weights_are_refused_unopened(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load_clip(folder).name == "my-clip"  # safetensors beside it win
    (folder / "model.safetensors").unlink()
    message = error_of(folder)
    assert "pytorch_model.bin, a pickle, which is never opened" in message
    assert f"save_pretrained('{folder}')" in message


@pytest.mark.parametrize("kind", ["siglip", "clip_text_model", None])
def test_another_kind_of_model_is_refused(folder: Path, kind: str | None) -> None:
    edit_json(folder / "config.json", model_type=kind)
    message = error_of(folder)
    assert f"model_type is {kind!r}, not 'clip'" in message
    assert "plug-in" in message


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[1]", '"clip"'])
def test_broken_json_is_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    assert str(folder / file) in error_of(folder)


def test_a_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer files cannot be read" in error_of(folder)


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, 100_000])
def test_cut_off_weights_are_named(folder: Path, kept_bytes: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    assert f"{file} is broken or cut off at {kept_bytes} bytes" in error_of(folder)


@pytest.mark.parametrize("key", ["logit_scale", "visual_projection.weight", "text_model.encoder.layers.1.mlp.fc1.bias"])
def test_weights_never_start_at_random_because_one_is_missing(folder: Path, key: str) -> None:
    edit_weights(folder, lambda weights: weights.pop(key))
    message = error_of(folder)
    assert key in message
    assert "lack" in message


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({"visual_projection.weight": torch.zeros(40, 63)}))
    assert "visual_projection.weight [40, 63] instead of [40, 64]" in error_of(folder)


def test_weights_of_a_deeper_model_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", vision_config={**config["vision_config"], "num_hidden_layers": 1})
    assert "vision_model.encoder.layers.1." in error_of(folder)


def test_position_ids_and_extra_heads_do_no_harm(folder: Path, tiny_clip_folder: Path) -> None:
    extra = {"text_model.embeddings.position_ids": torch.arange(77)[None], "classifier.weight": torch.zeros(2, 40)}
    edit_weights(folder, lambda weights: weights.update(extra))
    pixels = torch.ones(1, 3, 32, 32)
    expected = load_backbone(str(tiny_clip_folder)).encode_image(pixels)[0]
    torch.testing.assert_close(load_backbone(str(folder)).encode_image(pixels)[0], expected)


def test_impossible_settings_are_an_input_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", vision_config={**config["vision_config"], "hidden_act": "no_such_activation"})
    assert "transformers cannot load it" in error_of(folder)


def test_preprocessing_for_another_image_size_is_refused(folder: Path) -> None:
    edit_json(folder / "preprocessor_config.json", crop_size={"height": 48, "width": 48})
    message = error_of(folder)
    assert "[3, 48, 48]" in message
    assert "[3, 32, 32]" in message


def test_preprocessing_as_transformers_5_saves_it(folder: Path, tiny_clip_folder: Path) -> None:
    from transformers import CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer

    processor = CLIPImageProcessorPil.from_pretrained(folder, image_mean=[0.5, 0.4, 0.3])
    (folder / "preprocessor_config.json").unlink()
    CLIPProcessor(processor, CLIPTokenizer.from_pretrained(folder)).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    black = load_backbone(str(folder)).preprocess(Image.new("RGB", (40, 40)))
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(black[:, 0, 0], -torch.tensor([0.5, 0.4, 0.3]) / std)
    (folder / "processor_config.json").write_text("{}")
    assert "processor_config.json: it has no image_processor" in error_of(folder)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "eos_token_id": text["eos_token_id"] - 3})
    assert "end-of-text" in error_of(folder)
    edit_json(folder / "config.json", text_config=text)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "more": len(vocabulary)}))
    assert f"{len(vocabulary) + 1} tokens" in error_of(folder)


def test_weights_in_several_files(folder: Path, tiny_clip_folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    shards = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(weights)}
    for name in set(shards.values()):
        part = {key: tensor for key, tensor in weights.items() if shards[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert load_clip(folder).fingerprint == load_clip(tiny_clip_folder).fingerprint
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in error_of(folder)


def test_an_index_that_names_a_pickle_is_refused(folder: Path) -> None:
    shards = dict.fromkeys(load_file(folder / "model.safetensors"), "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    torch.save({}, folder / "pytorch_model.bin")
    assert "which is no safetensors file in that folder" in error_of(folder)


@pytest.mark.parametrize(
    "changed",
    [{"transformers_weights": "other.safetensors"}, {"vision_config": {"_attn_implementation": "somebody/kernels"}}],
)
def test_a_config_that_loads_from_elsewhere_is_refused(folder: Path, changed: dict[str, object]) -> None:
    edit_json(folder / "config.json", **changed)
    assert "weights or code that are not looked at here" in error_of(folder)


def test_an_adapter_that_would_be_put_on_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    assert "merge it with its model first" in error_of(folder)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_float32_whatever_the_checkpoint_holds(folder: Path, stored: torch.dtype) -> None:
    edit_weights(folder, lambda weights: weights.update({key: value.to(stored) for key, value in weights.items()}))
    edit_json(folder / "config.json", dtype=str(stored).removeprefix("torch."))
    backbone = load_clip(folder)
    parameters = [*backbone.text_model.parameters(), *backbone.image_blocks.parameters()]
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    from transformers.utils import logging as transformers_logging

    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.enable_progress_bar()
    transformers_logging.set_verbosity_info()
    try:
        load_backbone(str(folder))
        assert transformers_logging.is_progress_bar_enabled()
        assert transformers_logging.get_verbosity() == logging.INFO
    finally:
        transformers_logging.set_verbosity(level)
        if not bars:
            transformers_logging.disable_progress_bar()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network. The library reads both settings once, at its import."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill_cache(cache: Path, folder: Path) -> Path:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = cache / f"models--{HUB_ID.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, model / "snapshots" / commit))


def test_an_unknown_hub_id_offline_says_what_to_do(hub_cache: Path) -> None:
    message = error_of(HUB_ID)
    for part in (HUB_ID, "local folder", f"hf download {HUB_ID}", "HF_HOME"):
        assert part in message


def test_a_hub_id_is_read_from_the_cache(hub_cache: Path, tiny_clip_folder: Path) -> None:
    fill_cache(hub_cache, tiny_clip_folder)
    backbone = load_backbone(HUB_ID)
    assert backbone.name == HUB_ID
    assert backbone.image_size == 32


def test_a_hub_model_without_safetensors_is_refused(hub_cache: Path, tiny_clip_folder: Path) -> None:
    (fill_cache(hub_cache, tiny_clip_folder) / "model.safetensors").unlink()
    message = error_of(HUB_ID)
    assert "no model.safetensors" in message
    assert "save_pretrained" in message


def test_the_hubs_own_conversion_is_used_and_nobody_elses(
    hub_cache: Path, tiny_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = fill_cache(hub_cache, tiny_clip_folder)
    converted = tmp_path / "converted"
    converted.mkdir()
    shutil.move(snapshot / "model.safetensors", converted)
    asked: dict[str, object] = {}

    def discussions(hub_id: str, **filters: object) -> list[SimpleNamespace]:
        asked.update(filters, hub_id=hub_id)
        return [
            SimpleNamespace(num=2, status="closed", title="Adding `safetensors` variant of this model"),
            SimpleNamespace(num=3, status="open", title="Fix the licence"),
            SimpleNamespace(num=5, status="open", title="Adding `safetensors` variant of this model"),
        ]

    def download(hub_id: str, *, revision: str = "main", **_: object) -> str:
        return str({"main": snapshot, "refs/pr/5": converted}[revision])

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_repo_discussions", discussions)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_clip(HUB_ID).fingerprint == load_clip(tiny_clip_folder).fingerprint
    assert asked == {"hub_id": HUB_ID, "author": "SFconvertbot", "discussion_type": "pull_request"}


def test_a_lost_connection_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import HTTPError

    def download(hub_id: str, **_: object) -> str:
        raise HTTPError("connection reset")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert "connection reset" in error_of(HUB_ID)
