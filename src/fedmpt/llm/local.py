"""A language model in a folder or a GGUF file, run here by transformers: no network, no key.

Weights are read from safetensors or GGUF only: unpickling a ``pytorch_model.bin`` runs code of whoever wrote it. Code
that comes with a model is never run either.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedmpt.backbone.model_folder import PICKLED, check_own, settings_in, weights_in
from fedmpt.files import check_safetensors
from fedmpt.llm.model import Answer, Request, RequestTooLongError
from fedmpt.types import InputError

TOP_P, REPETITION_PENALTY = 0.9, 1.05
"""Of sampling. Small models loop without a penalty; from about 1.2 on it breaks JSON, whose signs must come again."""
DATE = "01 Jan 2025"
"""Some chat templates write today's date into the prompt; where they take one, it is the same every day."""
SETTINGS = ("config.json", "generation_config.json", "*token*", "chat_template*", "vocab*", "merges.txt")
"""Files beside the weights that change answers."""
GIVE = "give a folder of a causal language model as Hugging Face stores it, with safetensors, or a .gguf file"


class LocalModel:
    """A `fedmpt.llm.model.LanguageModel` at ``path``, on a GPU of CUDA if there is one, else the CPU.

    What can be checked quickly is; the weights are hashed, which takes seconds per gigabyte, and loaded when the first
    question is asked. An answer depends on nothing but its request: torch's random numbers come from a stream of the
    request's own and those of everybody else stay as they were. Other hardware or versions may round, and so answer,
    differently.

    Raises:
        InputError: if there is no causal language model, a file is missing or broken, or a package is.
    """

    max_concurrency = 1
    keeps_answers = False
    ignored: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        weights = _weights_of_folder(path) if path.is_dir() else _checked_gguf(path)
        settings = {file for pattern in SETTINGS for file in path.glob(pattern) if file.is_file()}
        self.path = path
        self.identity: Mapping[str, str] = {
            "provider": "local",
            "model": path.absolute().name,
            "weights": _hash(weights),
            "settings": _hash(sorted(settings)) if path.is_dir() else "in the weights",
            "sampling": f"top_p={TOP_P} repetition_penalty={REPETITION_PENALTY}",
        }
        self._loaded: tuple[Any, Any] | None = None

    def ask(self, request: Request) -> Answer:
        """The model's next turn; ``temperature`` 0 takes the likeliest token each time.

        Raises:
            InputError: if the model cannot be loaded, or (RequestTooLongError) reads no conversation that long.
        """
        import torch

        if self._loaded is None:
            self._loaded = _load(self.path)
        tokenizer, model = self._loaded
        seed = int.from_bytes(hashlib.sha256(json.dumps(request.canonical()).encode()).digest()[:8], "little") % 2**63
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            return _generate(self.path, tokenizer, model, request)

    def close(self) -> None:
        """Free the memory; a later question loads the model again."""
        self._loaded = None


def _generate(path: Path, tokenizer: Any, model: Any, request: Request) -> Answer:
    import torch
    from transformers import GenerationConfig

    prompt = _tokens(path, tokenizer, request).to(model.device)
    length = prompt.shape[1]
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or length + request.max_tokens
    if length >= context:
        raise RequestTooLongError(
            f"{path}: the conversation has {length} tokens and the model reads {context}; ask for fewer combinations "
            "in one request or fewer sentences of each, or take a model with a longer context"
        )
    if prompt.max() >= model.get_input_embeddings().num_embeddings:
        raise InputError(f"{path}: the tokenizer is that of another model; copy all files from one place")
    ends: list[int] = model.generation_config.eos_token_id or []
    chance: dict[str, Any] = {"do_sample": False}
    if request.temperature > 0:
        chance = {"do_sample": True, "temperature": request.temperature, "top_p": TOP_P, "top_k": 0}
    settings = GenerationConfig(
        max_new_tokens=min(request.max_tokens, context - length),
        repetition_penalty=REPETITION_PENALTY,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        **chance,
    )
    try:
        tokens = model.generate(prompt, attention_mask=prompt.new_ones(prompt.shape), generation_config=settings)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{path}: {model.device} has too little memory for {length} tokens and {settings.max_new_tokens} new ones; "
            "ask for fewer combinations in one request, or take a smaller model"
        ) from error
    answer = tokens[0, length:].tolist()
    text = tokenizer.decode(answer, skip_special_tokens=True).strip()
    return Answer(text, "stop" if answer[-1] in ends else "length", prompt_tokens=length, answer_tokens=len(answer))


def _tokens(path: Path, tokenizer: Any, request: Request) -> Any:
    """Ids [1, length] of the conversation, by the model's chat template or, without one, as plain text."""
    if not tokenizer.chat_template:
        text = "".join(f"{message.content}\n\n" for message in request.messages)
        return tokenizer(text, return_tensors="pt")["input_ids"]
    options: Any = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True, "date_string": DATE}
    options["enable_thinking"] = False  # Or some think aloud first, and all their tokens go into that.
    for system in (True, False):  # Some templates know no system message.
        try:
            return tokenizer.apply_chat_template(request.chat(system=system), **options)["input_ids"]
        except Exception as error:  # A template is a program, and may fail as programs do.
            failure = error
    raise InputError(f"{path}: its chat template does not take the conversation ({failure}); {GIVE}") from failure


def _load(path: Path) -> tuple[Any, Any]:
    """Tokenizer and model, ready to generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    # Whether a file fits its model is checked here, and said in other words.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf_reader: Any = modeling_gguf_pytorch_utils
    gguf_reader.tqdm = logging.tqdm  # Its own bar knows nothing of that.
    options: Any = {"local_files_only": True, "trust_remote_code": False}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), TemporaryDirectory() as alone:
        warnings.simplefilter("ignore")
        folder = path
        if not path.is_dir():  # transformers takes a tokenizer.json beside a GGUF file, of whatever, for its own.
            folder, options["gguf_file"] = Path(alone), path.name
            try:
                (folder / path.name).symlink_to(path.absolute())
            except OSError:  # Windows lets few people do that.
                folder = path.parent
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **options)
            options |= {"use_safetensors": True, "dtype": "auto", "output_loading_info": True}
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
        except Exception as error:  # transformers raises whatever its parts raise on wrong files
            reason = (str(error).replace(f"{alone}/", "").splitlines() or [""])[0][:300]
            raise InputError(
                f"{path} cannot be loaded as a language model ({type(error).__name__}: {reason}); copy it again if it "
                f"may be cut off, or {GIVE}"
            ) from error
    model, info = loaded[0].eval().to("cuda" if torch.cuda.is_available() else "cpu"), loaded[1]
    lacking = [*info["missing_keys"], *(mismatch[0] for mismatch in info["mismatched_keys"])]
    if lacking:  # transformers only warns, and leaves random numbers there
        raise InputError(
            f"{path}: the weights lack {len(lacking)} of what config.json describes, such as {sorted(lacking)[0]}; "
            "copy all files from one place"
        )
    # Chat models may end a turn by another token than a text.
    own = model.generation_config.eos_token_id
    ends = {
        token for token in (*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id) if token is not None
    }
    # What a model brings along for sampling would fill in whatever is left open.
    model.generation_config = GenerationConfig(eos_token_id=sorted(ends) or None)
    return tokenizer, model


def _weights_of_folder(folder: Path) -> list[Path]:
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{folder} holds no model: config.json is missing; {GIVE}")
    names = settings_in(config).get("architectures") or []
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names):
        raise InputError(f"{config} describes a {names[0]}, which writes no text; {GIVE}")
    check_own(folder)
    files = weights_in(folder)
    for file in files:
        if file.is_file():
            check_safetensors(file)
        elif pickled := sorted(found.name for pattern in PICKLED for found in folder.glob(pattern)):
            raise InputError(
                f"{folder}: weights only as {pickled[0]}, a pickle, which is never opened here; convert it once, if "
                "you trust who made it, with transformers' save_pretrained, or take a model with safetensors"
            )
        else:
            raise InputError(f"{file} is missing; copy all files of the model there (hf download ID --local-dir DIR)")
    return files


def _checked_gguf(file: Path) -> list[Path]:
    """By its first bytes only."""
    with file.open("rb") as stream:
        is_gguf = stream.read(4) == b"GGUF"
    if not is_gguf:
        raise InputError(f"{file} is no GGUF file (it does not begin with 'GGUF'); {GIVE}")
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", file.name, re.IGNORECASE):
        raise InputError(f"{file} is one part of a model; put the parts together with llama-gguf-split --merge first")
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{file}: GGUF files need {' and '.join(missing)}; pip install 'fedmpt[llm-local]'")
    return [file]


def _hash(files: Sequence[Path]) -> str:
    """SHA-256 in hexadecimal digits: of one file, what ``sha256sum`` prints; of several, of their names and hashes."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0]
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
