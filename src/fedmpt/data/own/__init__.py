"""Photos of users: a folder with a table, COCO JSON, VOC XML or metadata.jsonl, or one such folder a site.

It may import what all of `data` may.
"""

from __future__ import annotations

from fedmpt.data.own.clients import load_clients
from fedmpt.data.own.folder import load_folder

__all__ = ["load_clients", "load_folder"]
