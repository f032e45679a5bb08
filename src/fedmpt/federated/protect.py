"""What keeps updates from telling much of one client: its change is cut to a length, and noise is added."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy
import torch
from jaxtyping import Float64
from torch import Tensor

from fedmpt.federated.privacy import Privacy
from fedmpt.methods import Method
from fedmpt.seeding import generator
from fedmpt.state import Update
from fedmpt.types import State

Noise = Callable[[torch.Size], Float64[Tensor, "..."]]
"""Draws independent standard normal numbers, as many as a shape has."""


def seeded(seed: int, *identity: int) -> Noise:
    """The same numbers for the same seed and identity. Who knows the seed can take the noise off again, so this only
    simulates privacy."""
    random = generator(seed, "dp-noise", *identity)
    return lambda shape: torch.randn(shape, generator=random, dtype=torch.float64)


def entropy(shape: torch.Size) -> Float64[Tensor, "..."]:
    """Numbers from the operating system's random source, which nobody can draw again."""
    bits = numpy.frombuffer(os.urandom(8 * shape.numel()), dtype=numpy.uint64) >> 12
    # In the middle of 2^52 equal steps, so never 0 or 1.
    uniform = torch.from_numpy((bits.astype(numpy.float64) + 0.5) * 2.0**-52)
    return torch.special.ndtri(uniform).reshape(shape)


def parameters_of(method: Method, state: State) -> list[str]:
    """Names of what is trained and sent; the rest are running statistics."""
    return sorted(state.keys() - dict(method.named_buffers()).keys())


def clipped(update: Update, previous: State, *, parameters: Sequence[str], norm: float) -> Update:
    """The update, its change of all ``parameters`` together at most ``norm`` long (Sun et al. 2019)."""
    changes = {name: update.state[name].double() - previous[name].double() for name in parameters}
    length = math.hypot(*(torch.linalg.vector_norm(change).item() for change in changes.values()))
    if length <= norm:
        return update
    shortened = {
        name: (previous[name].double() + norm / length * change).to(previous[name].dtype)
        for name, change in changes.items()
    }
    return replace(update, state={**update.state, **shortened})


def noised(state: State, *, parameters: Sequence[str], deviation: float, noise: Noise) -> dict[str, Tensor]:
    """The state with Gaussian noise of this standard deviation on every value of the ``parameters``."""
    changed = {
        name: (state[name].double() + deviation * noise(state[name].shape)).to(state[name].dtype) for name in parameters
    }
    return {**state, **changed}


def protected(
    method: Method,
    update: Update,
    previous: State,
    *,
    clip_norm: float,
    privacy: Privacy,
    at_least: int,
    noise: Noise,
) -> Update:
    """What a client sends where clients add the noise (``--dp-at sites``): clipped, with its share of the noise.

    ``previous`` is the server's state of the round. ``at_least`` is the number of updates without which a round does
    not count: that many shares make the whole noise, and more make more.
    """
    parameters = parameters_of(method, previous)
    shortened = clipped(update, previous, parameters=parameters, norm=clip_norm)
    deviation = privacy.dp_noise * clip_norm / math.sqrt(at_least)
    state = noised(shortened.state, parameters=parameters, deviation=deviation, noise=noise)
    return replace(shortened, state=state)
