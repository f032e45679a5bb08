"""A CLIP model in Hugging Face layout, from a folder or the hub, to a `ClipBackbone`.

Weights are read from safetensors only: unpickling a ``pytorch_model.bin`` runs code of whoever wrote it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.backbone.model_folder import (
    PICKLED,
    WEIGHTS,
    WEIGHTS_INDEX,
    check_own,
    quiet_transformers,
    settings_in,
    weights_in,
)
from fedmpt.files import check_safetensors
from fedmpt.types import InputError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"

CONVERT = (
    "convert it once, if you trust who made it: "
    "python -c \"from transformers import CLIPModel; CLIPModel.from_pretrained('{0}').save_pretrained('{1}')\""
)


def load_clip(folder: Path, *, weights: Path, name: str, device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """The CLIP model of a folder, frozen. ``weights`` is the folder of its safetensors, mostly the same. Raises
    InputError if a file is missing, broken or of another model, or files do not fit each other."""
    _check_files(folder, weights)
    with quiet_transformers():
        model = _load_model(folder, weights)
        tokenizer, processor = _load_tokenizer(folder), _load_processor(folder)
    # Read before the cast: bf16 would turn a scale of 100.0 into 98.9.
    logit_scale = model.logit_scale.detach().double().exp().item()
    model.requires_grad_(False).eval().to(device=device, dtype=dtype)
    backbone = ClipBackbone(name=name, model=model, logit_scale=logit_scale, tokenizer=tokenizer, processor=processor)
    _check_parts_fit(folder, backbone, model.config.text_config)
    return backbone


def fetch_from_hub(hub_id: str) -> tuple[Path, Path]:
    """Local folders of a hub model's files and of its weights, downloaded unless the cache has them.

    They differ for an older model that is stored as a pickle and that the hub's own bot converted to safetensors in
    a pull request which was never merged.

    Raises:
        InputError: if the model is unknown, closed, or not in the cache while the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    # From httpx or its successor, whichever huggingface_hub uses; it is no OSError if the connection fails.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    wanted = ["config.json", PREPROCESSOR, PROCESSOR, *TOKENIZER_FILES, "model*.safetensors", WEIGHTS_INDEX]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=wanted))
        weights = folder
        if not _has_safetensors(folder) and (revision := _converted_revision(hub_id)):
            weights = Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted[-2:]))
    except (OSError, ValueError, HTTPError) as error:  # huggingface_hub's own derive from the first two
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"backbone {hub_id!r} is no folder here, and the hub did not give it ({type(error).__name__}: {reason}). "
            f"Check the id; without a network give a local folder (on a machine with one: "
            f"hf download {hub_id} --local-dir FOLDER), or set HF_HOME to a cache that holds it"
        ) from error
    if not _has_safetensors(weights):
        raise InputError(
            f"backbone {hub_id!r}: no {WEIGHTS} on the hub (or, offline, in the cache at {folder}), and pickled "
            f"weights are never opened here; run hf download {hub_id} --local-dir FOLDER, "
            f"{CONVERT.format('FOLDER', 'FOLDER')}, and give FOLDER"
        )
    return folder, weights


def _converted_revision(hub_id: str) -> str | None:
    """The hub's own conversion of pickled weights, if it made one. Only its bot's account is trusted."""
    from huggingface_hub import constants, get_repo_discussions

    if constants.HF_HUB_OFFLINE:
        return None
    for discussion in get_repo_discussions(hub_id, author="SFconvertbot", discussion_type="pull_request"):
        if discussion.status == "open" and "safetensors" in discussion.title:
            return f"refs/pr/{discussion.num}"
    return None


def _has_safetensors(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() or (folder / WEIGHTS_INDEX).is_file()


def _check_files(folder: Path, weights: Path) -> None:
    tokenizers = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    there = {
        "config.json": (folder / "config.json").is_file(),
        f"{PREPROCESSOR} (how pictures are resized and normalised)": _preprocessor_file(folder).is_file(),
        "the tokenizer (tokenizer.json, or vocab.json and merges.txt)": any(
            all((folder / name).is_file() for name in names) for names in tokenizers
        ),
        f"the weights ({WEIGHTS})": _has_safetensors(weights) or bool(pickled),
    }
    if missing := [name for name, is_there in there.items() if not is_there]:
        raise InputError(
            f"{folder} is no complete CLIP model, it lacks {', '.join(missing)}; "
            "copy all files of the model there (hf download ID --local-dir FOLDER)"
        )
    if not _has_safetensors(weights):
        raise InputError(
            f"{folder}: weights only as {pickled[0]}, a pickle, which is never opened here; "
            f"{CONVERT.format(folder, folder)}"
        )
    check_own(folder)
    for file in weights_in(weights):
        if not file.is_file():
            raise InputError(f"{file} is missing, {WEIGHTS_INDEX} names it; copy it there")
        check_safetensors(file)
    if (kind := settings_in(folder / "config.json").get("model_type")) != "clip":
        raise InputError(
            f"{folder / 'config.json'}: model_type is {kind!r}, not 'clip' with both towers; "
            "for another kind of model write a plug-in, file.py:function (see fedmpt.types.Backbone)"
        )


def _load_model(folder: Path, weights: Path) -> Any:
    from transformers import CLIPConfig, CLIPModel

    try:
        loaded: Any = CLIPModel.from_pretrained(
            weights,
            config=CLIPConfig.from_pretrained(folder),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported with the others below, never accepted
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises whatever its parts raise on wrong settings
        raise InputError(f"{folder}: transformers cannot load it ({type(error).__name__}: {error})") from error
    model, info = loaded
    _check_all_loaded(folder, info)
    return model


def _check_all_loaded(folder: Path, info: dict[str, Any]) -> None:
    """transformers only warns, and leaves random numbers where the checkpoint had nothing."""
    # Old checkpoints store position ids. Other heads on top of the towers do no harm, unread parts of towers do.
    unread = [key for key in info["unexpected_keys"] if "_model." in key and not key.endswith("position_ids")]
    mismatched = [f"{key} {list(has)} instead of {list(wants)}" for key, has, wants in info["mismatched_keys"]]
    for what, keys in (("lack", info["missing_keys"]), ("have of another shape", mismatched), ("have beyond", unread)):
        if keys:
            named = ", ".join(sorted(keys)[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
            raise InputError(
                f"{folder}: config.json and weights are of different models; the weights {what} what it describes: "
                f"{named}. Copy both from one place"
            )


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise InputError(f"{folder}: its tokenizer files cannot be read ({error}); copy them again") from error


def _load_processor(folder: Path) -> Any:
    from transformers import CLIPImageProcessorPil  # the one that needs no torchvision

    file = _preprocessor_file(folder)
    settings: Any = settings_in(file)
    if file.name == PROCESSOR:
        settings = settings.get("image_processor")
    try:
        if not isinstance(settings, dict):  # CLIP's defaults would take its place
            raise ValueError("it has no image_processor")
        return CLIPImageProcessorPil.from_dict(settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: {error}; copy the model's own {PREPROCESSOR}") from error


def _preprocessor_file(folder: Path) -> Path:
    """Where every version looks first, or else where transformers 5 puts it in saving a CLIPProcessor."""
    file, newer = folder / PREPROCESSOR, folder / PROCESSOR
    return newer if newer.is_file() and not file.is_file() else file


def _check_parts_fit(folder: Path, backbone: ClipBackbone, text: Any) -> None:
    """Tokenizer and preprocessing against the towers; ``text`` is the config of the text tower."""
    tokenizer: Any = backbone.tokenizer
    different = None
    if len(tokenizer) > text.vocab_size:
        different = f"the tokenizer knows {len(tokenizer)} tokens, the text tower {text.vocab_size} (vocab_size)"
    # 2 stands in OpenAI's own configs and means: the highest id, which is end-of-text.
    elif tokenizer.eos_token_id != text.eos_token_id != 2:
        different = f"end-of-text is {tokenizer.eos_token_id} for the tokenizer and {text.eos_token_id} for the tower"
    if different:
        raise InputError(f"{folder}: {different}; tokenizer and config.json are of different models")
    side = backbone.image_size
    got = list(backbone.preprocess(Image.new("RGB", (side + 16, side))).shape)
    if got != [3, side, side]:
        raise InputError(
            f"{_preprocessor_file(folder)} makes pictures of {got}, the image tower (config.json, image_size) takes "
            f"{[3, side, side]}; mend crop_size and size"
        )
