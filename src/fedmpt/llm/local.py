"""A language model in a folder or a GGUF file, run here by transformers: no network, no key.

Weights are read from safetensors or GGUF only: unpickling runs code of whoever wrote it. Code that comes with a model
is never run either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedmpt.backbone.model_folder import check_own, quiet_transformers, weights_in
from fedmpt.files import check_safetensors
from fedmpt.llm.model import Answer, LanguageModel, Request, RequestTooLongError
from fedmpt.types import InputError

TOP_P, REPETITION_PENALTY = 0.9, 1.05
"""Of sampling. Small models loop without a penalty; from about 1.2 on it breaks JSON, whose signs must come again."""
DATE = "01 Jan 2025"
"""Some chat templates write today's date into the prompt; where they take one, it is the same every day."""
SETTINGS = ("config.json", "generation_config.json", "*token*", "chat_template*", "vocab*", "merges.txt")
"""Files beside the weights that change answers."""
GIVE = "give a folder of a causal language model as Hugging Face stores it, with safetensors, or a .gguf file"


class LocalModel(LanguageModel):
    """A model at ``path``, on a GPU of CUDA if there is one, else the CPU; loaded when the first question is asked.

    An answer depends on nothing but its request: torch's random numbers come from a stream of the request's own.
    Other hardware or versions may round, and so answer, differently. What is missing or broken is an InputError.
    """

    def __init__(self, path: Path) -> None:
        weights = _weights_of(path)
        settings = {file for pattern in SETTINGS for file in path.glob(pattern) if file.is_file()}
        self.path = path
        self.identity = {
            "provider": "local",
            "model": path.absolute().name,
            "weights": _hash(weights),
            "settings": _hash(sorted(settings)) if path.is_dir() else "in the weights",
            "sampling": f"top_p={TOP_P} repetition_penalty={REPETITION_PENALTY}",
        }
        self._loaded: tuple[Any, Any] | None = None

    def ask(self, request: Request) -> Answer:
        """The model's next turn; ``temperature`` 0 takes the likeliest token each time."""
        import torch
        from transformers import GenerationConfig

        self._loaded = self._loaded or _load(self.path)
        tokenizer, model = self._loaded
        prompt = self._tokens(tokenizer, request).to(model.device)
        length, limit = prompt.shape[1], request.max_tokens
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or length + limit
        if length >= context:
            raise RequestTooLongError(
                f"{self.path}: the conversation has {length} tokens and the model reads {context}; lower --per-request "
                "or --context-tokens, or take a model with a longer context"
            )
        own = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        settings: Any = {"eos_token_id": sorted(ends) or None, "pad_token_id": min(ends, default=0)}
        # What a model brings along for sampling would fill in whatever is left open.
        model.generation_config = GenerationConfig(**settings)
        settings |= {"max_new_tokens": min(limit, context - length), "repetition_penalty": REPETITION_PENALTY}
        if request.temperature > 0:
            settings |= {"do_sample": True, "temperature": request.temperature, "top_p": TOP_P, "top_k": 0}
        seed = int.from_bytes(hashlib.sha256(json.dumps(request.canonical()).encode()).digest()[:8], "little") % 2**63
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            mask, config = prompt.new_ones(prompt.shape), GenerationConfig(**settings)
            tokens = model.generate(prompt, attention_mask=mask, generation_config=config)
        answer = tokens[0, length:].tolist()
        text = tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Answer(text, "stop" if answer[-1] in ends else "length", prompt_tokens=length, answer_tokens=len(answer))

    def _tokens(self, tokenizer: Any, request: Request) -> Any:
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
        raise InputError(f"{self.path}: its chat template fails ({failure}); {GIVE}") from failure


def _load(path: Path) -> tuple[Any, Any]:
    """Tokenizer and model, ready to generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: Any = {"local_files_only": True, "trust_remote_code": False}
    folder = path
    if not path.is_dir():
        folder, options["gguf_file"] = path.parent, path.name
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **options)
            options |= {"use_safetensors": True, "dtype": "auto", "output_loading_info": True}
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # transformers raises whatever its parts raise on wrong files.
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise InputError(
            f"{path} cannot be loaded as a language model ({reason}); copy it again if it may be cut off, or {GIVE}"
        ) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):  # transformers leaves random numbers there.
        raise InputError(f"{path}: the weights lack {missing[0]!r} ({len(missing)} in all); copy the model again")
    return tokenizer, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _weights_of(path: Path) -> list[Path]:
    """The files of weights, as far as they can be checked without loading them."""
    if (path / "config.json").is_file():
        check_own(path)
        files = weights_in(path)
        for file in files:
            if not file.is_file():
                raise InputError(f"{file} is missing; copy all files of the model there. A pickle is never read")
            check_safetensors(file)
        return files
    if not path.is_file():
        raise InputError(f"{path} is no folder with a config.json, and no file; {GIVE}")
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise InputError(f"{path}: GGUF files need {' and '.join(missing)}; pip install 'fedmpt[llm-local]'")
    return [path]


def _hash(files: Sequence[Path]) -> str:
    """SHA-256 in hexadecimal digits: of one file, what ``sha256sum`` prints; of several, of their names and hashes."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return digests[0] if len(files) == 1 else hashlib.sha256("".join(lines).encode()).hexdigest()
