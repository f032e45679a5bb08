"""The ``--cache`` option of all commands: the folder that is given, or the user's own."""

from __future__ import annotations

from pathlib import Path


def cache_folder(given: Path | None) -> Path:
    """``given``, else $FEDMPT_CACHE, else a folder of the user's cache."""
    from fedmpt.files import default_cache  # Imported late: it loads torch, and help must not wait for that.

    return given or default_cache()
