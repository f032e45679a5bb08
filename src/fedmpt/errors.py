"""What users are to mend. Apart from `fedmpt.types`, which loads torch: some processes do without."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to mend it."""


class DivergedError(InputError):
    """Training has led to numbers that are not finite, mostly by a learning rate that is too high."""
