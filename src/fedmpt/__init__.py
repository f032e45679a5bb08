"""Federated multi-label recognition with a frozen vision-language model."""

__version__ = "0.1.0"
