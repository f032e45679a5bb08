"""The files of a local language model: found, looked at before anything is loaded, and hashed."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedmpt.files import check_safetensors, read_json
from fedmpt.types import InputError

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
SETTINGS = ("config.json", "generation_config.json", "*token*", "chat_template*", "vocab*", "merges.txt")
"""Files beside the weights that change answers."""
GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How architectures of language models end; those of the last kind may be others, which shows in loading."""
GIVE = "give a folder of a causal language model as Hugging Face stores it, with safetensors, or a .gguf file"

IMPLEMENTATIONS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
"""Of a model's layers, those that come with transformers. By other names it may load code from the network."""

_FILE_OF_WEIGHTS = re.compile(r"[\w.-]+\.safetensors")
_PART_OF_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a folder or a GGUF file.

    Raises:
        InputError: if there is no causal language model, a file is missing or plainly broken, or a package is missing.
    """
    if path.is_dir():
        return _weights_of_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; {GIVE}")
    _check_gguf(path)
    return [path]


def setting_files(folder: Path) -> list[Path]:
    """What else is in a folder that answers depend on, in the order of names."""
    return sorted({file for pattern in SETTINGS for file in folder.glob(pattern) if file.is_file()})


def hash_files(files: list[Path]) -> str:
    """SHA-256 in hexadecimal digits: of one file, what ``sha256sum`` prints; of several, of their names and hashes."""
    digests = []
    for file in files:
        try:
            with file.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if len(files) == 1:
        return digests[0]
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _weights_of_folder(folder: Path) -> list[Path]:
    config = folder / "config.json"
    if not config.is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"give the file itself, {ggufs[0]}" if ggufs else GIVE
        raise InputError(f"{folder} holds no model: config.json is missing; {hint}")
    _check_config(config)
    if (adapter := folder / "adapter_config.json").exists():
        raise InputError(f"{adapter}: weights that are an adapter's are not read; merge it with its model first")
    files = [folder / WEIGHTS]
    if not files[0].is_file() and (index := folder / WEIGHTS_INDEX).is_file():
        names = _settings(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise InputError(f"{index}: weight_map is missing; copy the file again")
        if strange := sorted(name for name in names.values() if not _FILE_OF_WEIGHTS.fullmatch(name)):
            raise InputError(f"{index} names {strange[0]!r}, which is no file of weights in that folder; {GIVE}")
        files = [folder / name for name in sorted(set(names.values()))]
    for file in files:
        _check_weights(file)
    return files


def _settings(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, not settings by name; copy it again")
    return content


def _check_config(config: Path) -> None:
    """What it says the model is, if it does (if not, loading shows), and that it loads nothing from elsewhere."""
    settings = _settings(config)
    _refuse_other_sources(config, settings)
    architectures = settings.get("architectures") or []
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if names and not any(name.endswith(GENERATES) for name in names):
        raise InputError(f"{config} describes a {names[0]}, which writes no text; {GIVE}")


def _refuse_other_sources(config: Path, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        is_known = name != "transformers_weights" and (not name.endswith("_implementation") or value in IMPLEMENTATIONS)
        if not is_known and value is not None:
            raise InputError(
                f"{config}: {name} names {value!r}, weights or code that are not looked at here; delete that line, if "
                f"the model is complete without, or {GIVE}"
            )
        if isinstance(value, dict):
            _refuse_other_sources(config, value)


def _check_weights(file: Path) -> None:
    if not file.is_file():
        pickled = sorted(found.name for pattern in PICKLED for found in file.parent.glob(pattern))
        if pickled:
            raise InputError(
                f"{file.parent}: weights only as {pickled[0]}, a pickle, which is never opened here; convert it once, "
                "if you trust who made it, with transformers' save_pretrained, or take a model with safetensors"
            )
        raise InputError(f"{file} is missing; copy all files of the model there (hf download ID --local-dir FOLDER)")
    check_safetensors(file)


def _check_gguf(file: Path) -> None:
    """First bytes only."""
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise InputError(f"{file} is no GGUF file (it does not begin with 'GGUF'); {GIVE}")
    if _PART_OF_GGUF.search(file.name):
        raise InputError(f"{file} is one part of a model; put the parts together with llama-gguf-split --merge first")
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{file}: GGUF files need {' and '.join(missing)}; pip install 'fedmpt[llm-local]'")
