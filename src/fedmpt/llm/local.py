"""A language model in a folder or a GGUF file, run here by transformers: no network, no key.

Weights are read from safetensors or GGUF only: unpickling a ``pytorch_model.bin`` runs code of whoever wrote it. Code
that comes with a model is never run either.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedmpt.llm.conversation import RequestTooLongError
from fedmpt.llm.local_files import GIVE, hash_files, setting_files, weight_files
from fedmpt.llm.model import Answer, Request
from fedmpt.types import InputError

TOP_P, REPETITION_PENALTY = 0.9, 1.05
"""Of sampling. Small models loop without a penalty; from about 1.2 on it breaks JSON, whose signs must come again."""
DATE = "01 Jan 2025"
"""Some chat templates write today's date into the prompt; here it is the same every day."""
SAME_DATE = f"{{% macro strftime_now(format) %}}{DATE}{{% endmacro %}}{{{{ '' }}}}"
"""Before a template. Without something behind the block, a line break at the template's start would be lost."""


def open_local(path: Path, *, device: str = "") -> LocalModel:
    """The language model at ``path``, on ``device`` (empty: a GPU of CUDA if there is one, else the CPU).

    What can be checked quickly is; the weights are hashed, which takes seconds per gigabyte, and loaded when the first
    question is asked.

    Raises:
        InputError: if there is no causal language model, a file is missing or broken, or a package is.
    """
    weights = weight_files(path)
    identity = {
        "provider": "local",
        "model": path.absolute().name,
        "weights": hash_files(weights),
        "settings": hash_files(setting_files(path)) if path.is_dir() else "in the weights",
        "sampling": f"top_p={TOP_P} repetition_penalty={REPETITION_PENALTY}",
    }
    return LocalModel(path, identity, device)


class LocalModel:
    """A `fedmpt.llm.model.LanguageModel`; made by `open_local`.

    An answer depends on nothing but its request: torch's random numbers come from a stream of the request's own and
    those of everybody else stay as they were. Other hardware or versions may round, and so answer, differently.
    """

    max_concurrency = 1
    keeps_answers = False
    ignored: tuple[str, ...] = ()

    def __init__(self, path: Path, identity: Mapping[str, str], device: str = "") -> None:
        self.path = path
        self.identity = identity
        self.device = device
        self._loaded: tuple[Any, Any] | None = None

    async def ask(self, request: Request) -> Answer:
        """The model's next turn; nothing else runs meanwhile, and an interrupt ends it at once.

        ``temperature`` 0 takes the likeliest token each time.

        Raises:
            InputError: if the model cannot be loaded, or (RequestTooLongError) reads no conversation that long.
        """
        import torch

        with _interruptible():
            if self._loaded is None:
                self._loaded = _load(self.path, self.device)
            tokenizer, model = self._loaded
            devices = [model.device] if model.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices), torch.inference_mode(), _quiet():
                torch.manual_seed(_seed(request))
                return _generate(self.path, tokenizer, model, request)

    async def close(self) -> None:
        """Free the memory; a later question loads the model again."""
        self._loaded = None


def _generate(path: Path, tokenizer: Any, model: Any, request: Request) -> Answer:
    import torch

    prompt = _tokens(path, tokenizer, request).to(model.device)
    length = prompt.shape[1]
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or length + request.max_tokens
    if length == 0:
        raise InputError(f"{path}: its chat template makes nothing of the conversation; {GIVE}")
    if length >= context:
        raise RequestTooLongError(
            f"{path}: the conversation has {length} tokens and the model reads {context}; ask for fewer combinations "
            "in one request or fewer sentences of each, or take a model with a longer context"
        )
    if prompt.max().item() >= (known := model.get_input_embeddings().num_embeddings):
        raise InputError(
            f"{path}: the tokenizer gives token {prompt.max().item()} and the model knows {known}; copy all files from "
            "one place"
        )
    ends = model.generation_config.eos_token_id or []
    settings = _sampling(request, min(request.max_tokens, context - length), ends)
    try:
        tokens = model.generate(prompt, attention_mask=prompt.new_ones(prompt.shape), generation_config=settings)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{path}: {model.device} has too little memory for {length} tokens and {settings.max_new_tokens} new ones; "
            "ask for fewer combinations in one request, or take a smaller model"
        ) from error
    answer = tokens[0, length:].tolist()
    complete = bool(answer) and answer[-1] in ends
    text = tokenizer.decode(answer, skip_special_tokens=True).strip()
    return Answer(text, "stop" if complete else "length", prompt_tokens=length, answer_tokens=len(answer))


def _sampling(request: Request, max_new_tokens: int, ends: list[int]) -> Any:
    from transformers import GenerationConfig

    chance: dict[str, Any] = {"do_sample": False}
    if request.temperature > 0:
        chance = {"do_sample": True, "temperature": request.temperature, "top_p": TOP_P, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=1,
        repetition_penalty=REPETITION_PENALTY,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        **chance,
    )


def _end_tokens(tokenizer: Any, model: Any) -> list[int]:
    """Chat models may end a turn by another token than a text. What is no token of the model is passed over."""
    ends = model.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    known = range(model.get_input_embeddings().num_embeddings)
    return sorted({token for token in (*listed, tokenizer.eos_token_id) if type(token) is int and token in known})


def _tokens(path: Path, tokenizer: Any, request: Request) -> Any:
    """Ids [1, length] of the conversation, by the model's chat template or, without one, as plain text."""
    from jinja2 import TemplateError

    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    if not tokenizer.chat_template:
        text = "\n\n".join(message["content"] for message in messages) + "\n\n"
        return tokenizer(text, return_tensors="pt")["input_ids"]
    options: Any = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True, "date_string": DATE}
    options["enable_thinking"] = False  # Or some think aloud first, and all their tokens go into that.
    try:
        options["chat_template"] = SAME_DATE + tokenizer.get_chat_template()
        try:
            return tokenizer.apply_chat_template(messages, **options)["input_ids"]
        except TemplateError:  # Some templates know no system message.
            return tokenizer.apply_chat_template(_without_system(messages), **options)["input_ids"]
    except Exception as error:  # A template is a program, and may fail as programs do.
        raise InputError(f"{path}: its chat template does not take the conversation ({error}); {GIVE}") from error


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    first = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{"role": messages[1]["role"], "content": first}, *messages[2:]]


def _seed(request: Request) -> int:
    messages = [[message.role, message.content] for message in request.messages]
    content = json.dumps([messages, request.max_tokens, request.temperature, request.seed])
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "little") % 2**63


def _load(path: Path, device: str) -> tuple[Any, Any]:
    """Tokenizer and model, ready to generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    options: Any = {"local_files_only": True, "trust_remote_code": False}
    if not path.is_dir():
        options["gguf_file"] = path.name
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]), _quiet(), _without_bar():
        try:
            with nullcontext(path) if path.is_dir() else _alone(path) as folder:
                tokenizer: Any = AutoTokenizer.from_pretrained(folder, **options)
                options |= {"use_safetensors": True, "dtype": "auto", "output_loading_info": True}
                loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
            model, info = loaded[0].eval().to(device), loaded[1]
        except Exception as error:  # transformers raises whatever its parts raise on wrong files
            reason = (str(error).splitlines() or [""])[0][:300]
            raise InputError(
                f"{path} cannot be loaded as a language model ({type(error).__name__}: {reason}); copy it again if it "
                f"may be cut off, or {GIVE}"
            ) from error
    lacking = [*info["missing_keys"], *(mismatch[0] for mismatch in info["mismatched_keys"])]
    if lacking:  # transformers only warns, and leaves random numbers there
        raise InputError(
            f"{path}: the weights lack {len(lacking)} of what config.json describes, such as {sorted(lacking)[0]}; "
            "copy all files from one place"
        )
    # What a model brings along for sampling would fill in whatever is left open.
    model.generation_config = GenerationConfig(eos_token_id=_end_tokens(tokenizer, model) or None)
    return tokenizer, model


@contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """A folder with nothing but this file: transformers takes a tokenizer.json beside it, of whatever, for its own."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        link = Path(folder, file.name)
        try:
            link.symlink_to(file.absolute())
        except OSError:  # Windows lets few people do that.
            os.link(file, link)
        yield Path(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars, reports and warnings; what matters is checked and raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _without_bar() -> Iterator[None]:
    """Reading GGUF draws a bar of tqdm's own, which knows nothing of transformers' setting."""
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    module: Any = modeling_gguf_pytorch_utils
    own = module.tqdm
    module.tqdm = logging.tqdm
    try:
        yield
    finally:
        module.tqdm = own


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt at once. asyncio would wait until the coroutine next awaits something."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
