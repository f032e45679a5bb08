"""Entropic optimal transport from the patches of an image to classes, or to the prompts of one class.

FedMPT's plans (equation 3 of docs/method.md) are `sinkhorn` with rows of `patch_marginals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.types import DivergedError

MARGINAL_SUM_TOLERANCE = 1e-3
PLAIN_RANGE = 30.0
"""Largest spread of the cost over the entropy at which plans are computed without logarithms, 5 times faster."""


@torch.no_grad()
def sinkhorn(
    cost: Float[Tensor, "*batch M C"],
    rows: Float[Tensor, "*#batch M"],
    columns: Float[Tensor, "*#batch C"],
    *,
    entropy: float,
    mass: float | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
) -> Float[Tensor, "*batch M C"]:
    """Entropic transport plans, one for each leading index (Cuturi 2013, algorithm 1, in the log domain).

    ``entropy`` is in units of the cost (POT's ``reg``): smaller is sharper and slower. A problem stops when no row
    sum is off by more than ``tolerance`` of itself, and is left alone from then on, so its plan does not depend on
    what else is in the batch. The last update makes the column sums exact. Computed in at least fp32, never NaN
    for finite cost; marginal entries may be tiny or zero. The plan carries no gradient.

    With ``mass`` below one, only a part of the mass is moved (Benamou et al. 2015; FedOTP, Li et al. 2024): row sums
    are at most ``rows``, column sums are ``mass`` times ``columns``; of all such plans the one closest to
    ``exp(-cost / entropy)`` in Kullback-Leibler divergence. So rows that fit no column send less, or nothing.

    At the entropies in use (0.1 and more, for costs in [0, 1]) the defaults are within 1e-4 of the limit in every
    entry. Sharper plans need more iterations, about 1 / entropy times as many: 20,000 with tolerance 1e-6 agree with
    POT to 1e-5 at entropy 0.01.

    Raises:
        ValueError: if ``entropy`` is not positive, ``mass`` is not in (0, 1], ``max_iterations`` is less than one, or a
            marginal is negative or does not sum to one.
    """
    if not entropy > 0:
        raise ValueError(f"entropy must be positive, got {entropy}")
    if mass is not None and not 0 < mass <= 1:
        raise ValueError(f"mass must be in (0, 1], got {mass}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    _check_marginal(rows, "rows")
    _check_marginal(columns, "columns")
    cost = cost.to(torch.promote_types(cost.dtype, torch.float32))
    # A constant changes no plan; without it large costs keep their digits. The bound keeps sums of two finite.
    bound = torch.finfo(cost.dtype).max / 8
    log_kernel = -((cost - cost.amin((-2, -1), keepdim=True)) / entropy).clamp_max(bound)
    rows = rows.to(cost.dtype).expand(cost.shape[:-1])
    columns = (columns if mass is None else mass * columns).to(cost.dtype)
    # Projected on "at most", a row is only ever scaled down.
    most = torch.inf if mass is None else 1.0
    is_plain = bool(log_kernel.numel() and log_kernel.amin() > -PLAIN_RANGE)
    if is_plain:
        kernel, start = log_kernel.exp(), torch.ones_like(cost[..., 0, :])
        step = partial(_plain_step, kernel, rows, columns, most=most)
    else:
        start = torch.zeros_like(cost[..., 0, :])
        step = partial(_log_step, log_kernel, _log(rows), _log(columns), most=math.log(most))
    left, right = _scalings(step, start, is_relative=is_plain, max_iterations=max_iterations, tolerance=tolerance)
    if is_plain:
        return left[..., :, None] * kernel * right[..., None, :]
    return (log_kernel + left[..., :, None] + right[..., None, :]).exp()


def _scalings(
    step: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Float[Tensor, "*batch C"],
    *,
    is_relative: bool,
    max_iterations: int,
    tolerance: float,
) -> tuple[Float[Tensor, "*batch M"], Float[Tensor, "*batch C"]]:
    """What the kernel's rows and columns are multiplied by, or their logs, after steps from the columns' ``start``."""
    left, right = step(start)
    converged = torch.zeros(left.shape[:-1], dtype=torch.bool, device=left.device)
    for _ in range(max_iterations - 1):
        new_left, new_right = step(right)
        # A scaling changes by (marginal / row sum), so its relative change, or its log's, is the old plan's violation.
        violation = (new_left - left).abs()
        is_off = (violation > (tolerance * left if is_relative else tolerance)).any(-1)
        left = torch.where(converged[..., None], left, new_left)
        right = torch.where(converged[..., None], right, new_right)
        converged = converged | ~is_off
        if converged.all():
            break
    return left, right


def _plain_step(
    kernel: Float[Tensor, "*batch M C"], rows: Tensor, columns: Tensor, right: Tensor, *, most: float
) -> tuple[Float[Tensor, "*batch M"], Float[Tensor, "*batch C"]]:
    """Scalings of rows, never more than ``most``, and then of columns."""
    left = (rows / (kernel * right[..., None, :]).sum(-1)).clamp_max(most)
    # A product with one row is fast, one with a column is not.
    return left, columns / (left[..., None, :] @ kernel)[..., 0, :]


def _log_step(
    kernel: Float[Tensor, "*batch M C"], rows: Tensor, columns: Tensor, right: Tensor, *, most: float
) -> tuple[Float[Tensor, "*batch M"], Float[Tensor, "*batch C"]]:
    """The same with logs of all, where numbers could leave float32's range."""
    left = (rows - (kernel + right[..., None, :]).logsumexp(-1)).clamp_max(most)
    return left, columns - (kernel + left[..., :, None]).logsumexp(-2)


def patch_marginals(similarity: Float[Tensor, "*batch M C"], *, temperature: float) -> Float[Tensor, "*batch M"]:
    """How much mass each patch sends: softmax over patches of its best class similarity over ``temperature``.

    ``similarity`` is on the logit scale in FedMPT, cosines in RAM. Rows sum to one.
    """
    return (similarity.amax(-1) / temperature).softmax(-1)


def check_similarity(similarity: Tensor) -> None:
    """Raises DivergedError if training has diverged: there is no plan for similarities that are not finite."""
    if not similarity.isfinite().all():
        raise DivergedError("the similarities are no longer finite; try a lower learning rate")


def _log(marginal: Tensor) -> Tensor:
    """A zero becomes the smallest normal number, so no difference is inf - inf."""
    return marginal.clamp_min(torch.finfo(marginal.dtype).tiny).log()


def _check_marginal(marginal: Tensor, name: str) -> None:
    if marginal.numel() == 0:
        return
    deviation = (marginal.float().sum(-1) - 1).abs().max().item()
    if not deviation <= MARGINAL_SUM_TOLERANCE or (marginal < 0).any():
        raise ValueError(f"{name} must be non-negative and sum to one; a sum is off by {deviation:.3g}")
