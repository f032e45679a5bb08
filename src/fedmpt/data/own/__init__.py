"""Photos of users: a folder with a table, COCO JSON, VOC XML or metadata.jsonl, or one such folder a site.

It may import what all of `data` may.
"""

from __future__ import annotations

from fedmpt.data.own.clients import ClientsOptions, load_clients
from fedmpt.data.own.folder import load_folder, load_site
from fedmpt.data.own.listing import Options

__all__ = ["ClientsOptions", "Options", "load_clients", "load_folder", "load_site"]
