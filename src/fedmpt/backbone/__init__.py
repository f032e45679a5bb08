"""The frozen vision-language model: loading, image tower, text tower."""

from fedmpt.backbone.load import load_backbone

__all__ = ["load_backbone"]
