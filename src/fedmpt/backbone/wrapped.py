"""A backbone around another one: it changes what a subclass says, and all else is the other's own."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor


class Wrapped:
    """``plugin`` is the backbone within; fingerprints of features look into a wrapper under that name."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        # Attributes of its own, since isinstance with a protocol does not ask `__getattr__`.
        self.name: str = plugin.name
        self.image_size: int = plugin.image_size
        self.logit_scale: float = plugin.logit_scale
        self.tokenizer = plugin.tokenizer
        self.text_model = plugin.text_model

    def __getattr__(self, name: str) -> Any:
        """Members beyond the protocol. Called only for names this object has not got."""
        if name == "plugin":  # not set yet, while being unpickled
            raise AttributeError(name)
        return getattr(self.plugin, name)

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        return self.plugin.preprocess(image)
