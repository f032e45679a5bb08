"""Where computed things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """$FEDMPT_CACHE, else a folder of the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEDMPT_CACHE") or Path(base) / "fedmpt")
