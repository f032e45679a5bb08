"""Language models with random weights for tests, of some 100 KB: a Hugging Face folder, and a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
WIDTH, LAYERS, HEADS = 32, 2, 4


def write_tiny_llm(folder: Path, *, context: int = 512, template: str | None = CHAT, seed: int = 0) -> Path:
    """A Llama of 2 layers and width 32 that reads bytes; the global random state is left as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, template=template)
    make_model(vocabulary, context=context, seed=seed).save_pretrained(folder)
    return folder


def make_model(vocabulary: dict[str, int], *, context: int, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=context,
        initializer_range=0.3,  # Wide enough that what is likely depends on what was said.
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=vocabulary["<|end|>"],
        pad_token_id=vocabulary["<|end|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def make_tokens() -> dict[str, int]:
    """One for each byte, in the byte-level spelling, one merge (a GGUF file must have some), and the special ones."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {token: index for index, token in enumerate((*sorted(ByteLevel.alphabet()), "ab", *SPECIAL))}


def write_tokenizer(folder: Path, *, template: str | None) -> dict[str, int]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = make_tokens()
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    return vocabulary


def write_tiny_gguf(path: Path, *, seed: int = 0) -> Path:
    """The same kind of model in one file. Needs the package gguf."""
    import gguf

    vocabulary = make_tokens()
    model = make_model(vocabulary, context=512, seed=seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(vocabulary))
    writer.add_token_types([1] * (len(vocabulary) - len(SPECIAL)) + [3] * len(SPECIAL))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(vocabulary["<|end|>"])
    writer.add_chat_template(CHAT)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    for name, value in model.state_dict().items():
        tensor_name = names.get_name(name, try_suffixes=(".weight",))
        assert tensor_name is not None, name
        writer.add_tensor(tensor_name, value.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
