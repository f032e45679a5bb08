"""The files of a local language model: found, looked at before anything is loaded, and hashed."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

from fedmpt.backbone.model_folder import PICKLED, check_own, settings_in, weights_in
from fedmpt.files import check_safetensors
from fedmpt.types import InputError

SETTINGS = ("config.json", "generation_config.json", "*token*", "chat_template*", "vocab*", "merges.txt")
"""Files beside the weights that change answers."""
GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How architectures of language models end; those of the last kind may be others, which shows in loading."""
GIVE = "give a folder of a causal language model as Hugging Face stores it, with safetensors, or a .gguf file"

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
    _check_architecture(config)
    check_own(folder)
    files = weights_in(folder)
    for file in files:
        _check_weights(file)
    return files


def _check_architecture(config: Path) -> None:
    """What it says the model is, if it does; if not, loading shows."""
    architectures = settings_in(config).get("architectures") or []
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    if names and not any(name.endswith(GENERATES) for name in names):
        raise InputError(f"{config} describes a {names[0]}, which writes no text; {GIVE}")


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
