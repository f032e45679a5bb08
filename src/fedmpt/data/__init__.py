"""Photos with labels: benchmark sets, files of users, partitions into clients, and stored features.

It may import `backbone` and the words and small tools at the top of the package.
"""

from __future__ import annotations

from fedmpt.data.load import DATASETS, load_data, parse_spec

__all__ = ["DATASETS", "load_data", "parse_spec"]
