"""The folders that other tests stand on are what transformers takes for a CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_clip import byte_symbols, write_tiny_clip
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

SENTENCE = "A photo of THE dog"


@pytest.fixture(params=["tiny_clip_folder", "medium_clip_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_the_tokenizer_lowers_case_merges_and_frames(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(SENTENCE).input_ids)
    words = ["a</w>", "ph", "o", "t", "o</w>", "of</w>", "the</w>", "dog</w>"]
    assert tokens == ["<|startoftext|>", *words, "<|endoftext|>"]


def test_any_word_is_tokenised_without_loss(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    words = "zebra naïve straße 犬 7"
    assert tokenizer.decode(tokenizer(words).input_ids, skip_special_tokens=True) == words


def test_configured_ids_are_the_tokenizers(folder: Path) -> None:
    tokenizer, config = CLIPTokenizer.from_pretrained(folder), CLIPModel.from_pretrained(folder).config.text_config
    assert config.vocab_size == len(tokenizer)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )


def test_bytes_are_spelled_as_in_clips_vocabulary(shared: Path) -> None:
    published = CLIPTokenizer.from_pretrained(shared / "clip_tokenizer").get_vocab()
    assert [published[symbol] for symbol in byte_symbols()] == list(range(256))


def test_text_and_image_features_share_a_space(folder: Path) -> None:
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    image = Image.effect_noise((70, 50), 60).convert("RGB")
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        text = model.get_text_features(**tokenizer([SENTENCE, "cat"], padding=True, return_tensors="pt")).pooler_output
        image_features = model.get_image_features(pixels).pooler_output
    assert text.shape == (2, model.config.projection_dim)
    assert image_features.shape == (1, model.config.projection_dim)
    assert not torch.allclose(text[0], text[1])
    assert text.isfinite().all()
    assert image_features.isfinite().all()


def test_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    states = [
        CLIPModel.from_pretrained(write_tiny_clip(tmp_path / str(run), size="tiny", seed=seed)).state_dict()
        for run, seed in enumerate((3, 3, 4))
    ]
    name = "text_model.encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
    assert torch.equal(torch.random.get_rng_state(), before)
