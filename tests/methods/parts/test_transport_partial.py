"""Partial transport against POT, against FedOTP's equations as they stand, and what its plans have to be."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

from fedmpt.methods.parts.transport import check_similarity, sinkhorn
from fedmpt.types import InputError


def problem(*batch: int, patches: int = 12, prompts: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Costs one minus cosines, equal marginals, as FedOTP has them."""
    generator = torch.Generator().manual_seed(seed)
    cosines = 0.25 + 0.1 * torch.randn(*batch, patches, prompts, generator=generator)
    return 1 - cosines, torch.full((patches,), 1 / patches), torch.full((prompts,), 1 / prompts)


def plain_plan(cost: Tensor, mass: float, entropy: float, *, iterations: int) -> np.ndarray:
    """FedOTP's iteration as printed, for one image and one class, in double precision."""
    kernel = np.exp(-cost.double().numpy() / entropy)
    num_patches, num_prompts = kernel.shape
    a, b = 1 / num_patches, mass / num_prompts
    u, v = np.ones(num_patches), np.ones(num_prompts)
    for _ in range(iterations):
        for m in range(num_patches):
            u[m] = min(1 / sum(kernel[m, n] / a * v[n] for n in range(num_prompts)), 1)
        for n in range(num_prompts):
            v[n] = 1 / sum(kernel[m, n] / b * u[m] for m in range(num_patches))
    return u[:, None] * kernel * v


def converged(cost: Tensor, rows: Tensor, columns: Tensor, *, mass: float, entropy: float) -> Tensor:
    return sinkhorn(cost, rows, columns, mass=mass, entropy=entropy, max_iterations=20_000, tolerance=1e-6)


@pytest.mark.parametrize("mass", [0.5, 0.8, 0.99])
def test_converged_plans_agree_with_the_equations_of_fedotp(mass: float) -> None:
    cost, rows, columns = problem()
    expected = plain_plan(cost, mass, 0.1, iterations=2000)
    assert np.abs(converged(cost, rows, columns, mass=mass, entropy=0.1).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("entropy", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("mass", [0.5, 0.8])
def test_converged_plans_agree_with_pot(mass: float, entropy: float) -> None:
    """POT bounds the columns from above too; as these bounds sum to the mass, all of them are met."""
    cost, rows, _ = problem(patches=30, prompts=5)
    columns = torch.randn(5, generator=torch.Generator().manual_seed(1)).softmax(-1)
    expected = ot.partial.entropic_partial_wasserstein(
        rows.double().numpy(),
        mass * columns.double().numpy(),
        cost.double().numpy(),
        entropy,
        mass * columns.double().sum().item(),
        numItermax=20_000,
        stopThr=1e-14,
    )
    assert np.abs(converged(cost, rows, columns, mass=mass, entropy=entropy).numpy() - expected).max() < 1e-5


def test_the_default_stopping_is_accurate_to_a_hundredth_of_an_entry() -> None:
    cost, rows, columns = problem(8, patches=49)
    plan = sinkhorn(cost, rows, columns, mass=0.8, entropy=0.1)
    exact = converged(cost, rows, columns, mass=0.8, entropy=0.1)
    assert (plan - exact).abs().max() < 0.01 * rows[0]


def test_columns_are_exact_and_no_row_sends_more_than_it_has() -> None:
    cost, rows, columns = problem(3, 2)
    plan = sinkhorn(cost, rows, columns, mass=0.8, entropy=0.1)
    torch.testing.assert_close(plan.sum(-2), (0.8 * columns).expand(3, 2, -1), atol=1e-6, rtol=1e-5)
    assert (plan.sum(-1) <= rows * 1.001).all()


def test_what_fits_no_column_stays_where_it_is() -> None:
    cost, rows, columns = problem()
    cost[:2] += 3
    sent = converged(cost, rows, columns, mass=0.8, entropy=0.1).sum(-1)
    assert sent[:2].max() < 1e-6
    # The others have ten twelfths of the mass between them.
    assert (sent[2:] > 0.5 * rows[2:]).all()


def test_all_of_the_mass_is_plain_transport() -> None:
    cost, rows, columns = problem(4)
    expected = sinkhorn(cost, rows, columns, entropy=0.1, max_iterations=20_000, tolerance=1e-6)
    torch.testing.assert_close(converged(cost, rows, columns, mass=1.0, entropy=0.1), expected, atol=1e-5, rtol=0)


def test_a_plan_does_not_depend_on_its_batch() -> None:
    cost, rows, columns = problem(6)
    cost[3] *= 10
    together = sinkhorn(cost, rows, columns, mass=0.8, entropy=0.1)
    alone = torch.stack([sinkhorn(one, rows, columns, mass=0.8, entropy=0.1) for one in cost])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=1e-5)


def test_a_plan_carries_no_gradient_and_is_finite_for_extreme_costs() -> None:
    cost, rows, columns = problem()
    for factor in (0.0, 1e30):
        plan = sinkhorn((factor * cost).requires_grad_(), rows, columns, mass=0.8, entropy=0.1)
        assert not plan.requires_grad
        assert plan.isfinite().all()


@pytest.mark.parametrize("mass", [0.0, -0.1, 1.01, float("nan")])
def test_mass_must_be_a_share(mass: float) -> None:
    with pytest.raises(ValueError, match="mass must be in"):
        sinkhorn(*problem(), mass=mass, entropy=0.1)


def test_entropy_and_marginals_are_checked_as_in_plain_transport() -> None:
    cost, rows, columns = problem()
    with pytest.raises(ValueError, match="entropy must be positive"):
        sinkhorn(cost, rows, columns, mass=0.8, entropy=0)
    with pytest.raises(ValueError, match="columns must be non-negative and sum to one"):
        sinkhorn(cost, rows, 0.8 * columns, mass=0.8, entropy=0.1)


def test_similarities_of_a_diverged_model_have_no_plan() -> None:
    check_similarity(torch.ones(2))
    with pytest.raises(InputError, match="no longer finite; try a lower learning rate"):
        check_similarity(torch.tensor([1.0, float("nan")]))
