"""CLIP folders with random weights for tests, 1 to 3 MB each, in the layout of openai/clip-vit-base-patch16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

# Enough that some words take fewer tokens than letters, and that a merge of merges occurs.
MERGES = ("t h", "th e</w>", "a n", "i n", "in g</w>", "d o", "do g</w>", "c a", "ca t</w>", "p h", "o f</w>")

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "projection_dim": 40,
        "text": {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4},
        "vision": {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        "hidden_act": "quick_gelu",
    },
    "medium": {
        "projection_dim": 64,
        "text": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8},
        "vision": {
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "image_size": 48,
            "patch_size": 16,
        },
        "hidden_act": "gelu",
    },
}


def write_tiny_clip(folder: Path, *, size: Literal["tiny", "medium"], seed: int = 0) -> Path:
    """Write a CLIP with random weights, its tokenizer and its preprocessing into ``folder``, and return it.

    The same size and seed give the same weights; the global random state is left as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    write_preprocessing(folder, image_size=SIZES[size]["vision"]["image_size"])
    write_model(folder, size=size, vocabulary=vocabulary, seed=seed)
    return folder


def write_tokenizer(folder: Path) -> dict[str, int]:
    """A byte-level BPE in CLIP's form: 256 bytes, the same at a word's end, a few merges, start, end."""
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *(merge.replace(" ", "") for merge in MERGES)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens), "a merge makes a token that is already there"
    start, end = "<|startoftext|>", "<|endoftext|>"
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    settings = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    _write(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(("#version: 0.2", *MERGES)) + "\n")
    _write(folder / "special_tokens_map.json", json.dumps(special))
    _write(folder / "tokenizer_config.json", json.dumps(settings))
    return vocabulary


def byte_symbols() -> list[str]:
    """One printable character for each byte, as GPT-2 and CLIP spell bytes: printable ones stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = sorted(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + position) for position in range(len(others))]


def write_preprocessing(folder: Path, *, image_size: int) -> None:
    """CLIP's preprocessing, at another resolution."""
    settings = {
        "crop_size": {"height": image_size, "width": image_size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": image_size},
    }
    _write(folder / "preprocessor_config.json", json.dumps(settings))


def write_model(folder: Path, *, size: str, vocabulary: dict[str, int], seed: int) -> None:
    """A randomly initialised CLIPModel, with biases and norm gains that are not the 0 and 1 they start from."""
    from transformers import CLIPConfig, CLIPModel

    sizes = SIZES[size]
    ids = {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
    }
    tower = {"hidden_act": sizes["hidden_act"], "projection_dim": sizes["projection_dim"]}
    config = CLIPConfig(
        text_config={**sizes["text"], **tower, **ids, "max_position_embeddings": 77},
        vision_config={**sizes["vision"], **tower},
        projection_dim=sizes["projection_dim"],
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = CLIPModel(config)
        for parameter in model.parameters():
            # Left at 0 and 1, a bias or gain that a tower forgets would go unseen.
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
