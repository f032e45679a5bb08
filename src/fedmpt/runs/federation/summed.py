"""Scores of a federation in which no test image leaves its site: what the sites tell, put together."""

from __future__ import annotations
