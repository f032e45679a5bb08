"""The frozen vision-language model: loading, image tower, text tower, views of images.

It may import the words and small tools at the top of the package, nothing else of it.
"""

from fedmpt.backbone.load import load_backbone

__all__ = ["load_backbone"]
