"""A backbone of a user's own with four patches. Its bytes are part of the key of its features: never change them."""

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = {"<|startoftext|>": 0, "<|endoftext|>": 1}


class Plain:
    def __init__(self):
        self.name, self.image_size, self.logit_scale = "plain", 32, 10.0
        self.tokenizer = CLIPTokenizer(vocab=WORDS, merges=[])
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
        config = CLIPTextConfig(vocab_size=2, projection_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=1, **sizes)
        self.text_model = CLIPTextModelWithProjection(config)
        self.tower = torch.nn.Linear(3 * 16 * 16, 8)
        with torch.no_grad():
            self.tower.weight.copy_((torch.arange(8 * 768) % 17 - 8).reshape(8, 768) / 256)
            self.tower.bias.zero_()

    def preprocess(self, image):
        pixels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def encode_image(self, pixels):
        patches = torch.nn.functional.unfold(pixels, 16, stride=16).mT
        found = self.tower(patches)
        return found, found.mean(dim=1)


def load():
    return Plain()
