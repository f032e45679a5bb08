"""Sinkhorn against POT, and what its plans have to be."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

from fedmpt.methods.parts import transport
from fedmpt.methods.parts.transport import patch_marginals, sinkhorn


def problem(*batch: int, patches: int = 49, classes: int = 20, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(*batch, patches, classes, generator=generator)
    rows = torch.randn(*batch, patches, generator=generator).softmax(-1)
    columns = torch.randn(*batch, classes, generator=generator).softmax(-1)
    return cost, rows, columns


def pot_plan(cost: Tensor, rows: Tensor, columns: Tensor, entropy: float) -> np.ndarray:
    rows, columns = (marginal.double() / marginal.double().sum() for marginal in (rows, columns))
    return ot.sinkhorn(
        rows.numpy(),
        columns.numpy(),
        cost.double().numpy(),
        entropy,
        method="sinkhorn_log",
        numItermax=50_000,
        stopThr=1e-12,
    )


@pytest.mark.parametrize("entropy", [0.01, 0.05, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_converged_plans_agree_with_pot(entropy: float, seed: int) -> None:
    cost, rows, columns = problem(seed=seed)
    plan = sinkhorn(cost, rows, columns, entropy=entropy, max_iterations=20_000, tolerance=1e-6)
    assert np.abs(plan.numpy() - pot_plan(cost, rows, columns, entropy)).max() < 1e-5


@pytest.mark.parametrize("entropy", [0.2, 1.0])
def test_default_stopping_is_accurate_at_the_entropies_in_use(entropy: float) -> None:
    cost, rows, columns = problem()
    plan = sinkhorn(cost, rows, columns, entropy=entropy)
    assert np.abs(plan.numpy() - pot_plan(cost, rows, columns, entropy)).max() < 1e-5


@pytest.mark.parametrize("entropy", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("mass", [None, 0.8])
def test_plans_are_the_same_with_and_without_logarithms(
    entropy: float, mass: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost, rows, columns = problem(6)
    rows[0, 0], rows[0, 1] = 0, rows[0, 0] + rows[0, 1]
    rows[1:3] = (rows[1:3].log() * 12).softmax(-1)
    exact = {"entropy": entropy, "mass": mass, "max_iterations": 2000, "tolerance": 1e-6}
    plain = sinkhorn(cost, rows, columns, **exact)
    monkeypatch.setattr(transport, "PLAIN_RANGE", 0.0)
    assert torch.allclose(plain, sinkhorn(cost, rows, columns, **exact), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("entropy", [0.01, 0.2])
def test_tiny_marginals_agree_with_pot(entropy: float) -> None:
    cost, rows, columns = problem()
    rows, columns = (rows.log() * 12).softmax(-1), (columns.log() * 8).softmax(-1)
    assert rows.min() < 1e-12
    plan = sinkhorn(cost, rows, columns, entropy=entropy, max_iterations=20_000, tolerance=1e-6)
    assert plan.isfinite().all()
    assert np.abs(plan.numpy() - pot_plan(cost, rows, columns, entropy)).max() < 1e-5


def test_zero_marginals_get_no_mass() -> None:
    cost, rows, columns = problem()
    rows[:5], columns[:3] = 0, 0
    plan = sinkhorn(cost, rows / rows.sum(), columns / columns.sum(), entropy=0.1)
    assert plan.isfinite().all()
    assert plan[:5].max() < 1e-30
    assert plan[:, :3].max() < 1e-30


def test_columns_are_exact_and_rows_within_the_tolerance() -> None:
    cost, rows, columns = problem(3, 2)
    plan = sinkhorn(cost, rows, columns, entropy=0.1, tolerance=1e-3)
    torch.testing.assert_close(plan.sum(-2), columns, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(plan.sum(-1), rows, atol=0, rtol=1.1e-3)


def test_a_plan_does_not_depend_on_its_batch() -> None:
    cost, rows, columns = problem(6)
    cost[3] *= 30  # Converges last, long after the others.
    together = sinkhorn(cost, rows, columns, entropy=0.2)
    alone = torch.stack([sinkhorn(*parts, entropy=0.2) for parts in zip(cost, rows, columns, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=1e-5)


def test_marginals_broadcast_over_the_batch() -> None:
    cost, rows, columns = problem(4)
    shared = sinkhorn(cost, rows, columns[0], entropy=0.5)
    repeated = sinkhorn(cost, rows, columns[0].expand(4, -1), entropy=0.5)
    torch.testing.assert_close(shared, repeated, atol=0, rtol=0)


def test_entropy_decides_between_a_uniform_and_a_sharp_plan() -> None:
    cost, rows, columns = problem()
    independent = rows[:, None] * columns
    soft = sinkhorn(cost, rows, columns, entropy=1e4)
    torch.testing.assert_close(soft, independent, atol=1e-6, rtol=1e-3)
    sharp = sinkhorn(cost, rows, columns, entropy=0.01, max_iterations=5000)
    assert (sharp * cost).sum() < 0.3 * (soft * cost).sum()


def test_bf16_cost_is_computed_in_fp32_and_carries_no_gradient() -> None:
    cost, rows, columns = problem()
    plan = sinkhorn(cost.bfloat16().requires_grad_(), rows, columns, entropy=0.2)
    assert plan.dtype == torch.float32
    assert not plan.requires_grad


@pytest.mark.parametrize("entropy", [0.0, -1.0, float("nan")])
def test_entropy_must_be_positive(entropy: float) -> None:
    with pytest.raises(ValueError, match="entropy must be positive"):
        sinkhorn(*problem(), entropy=entropy)


def test_marginals_must_sum_to_one() -> None:
    cost, rows, columns = problem()
    with pytest.raises(ValueError, match="rows must be non-negative and sum to one; a sum is off by 1"):
        sinkhorn(cost, 2 * rows, columns, entropy=1.0)
    with pytest.raises(ValueError, match="columns must be"):
        sinkhorn(cost, rows, columns * float("nan"), entropy=1.0)
    with pytest.raises(ValueError, match="max_iterations"):
        sinkhorn(cost, rows, columns, entropy=1.0, max_iterations=0)


@pytest.mark.parametrize(("factor", "entropy"), [(1e36, 1e-3), (1.0, 1e-42), (1e30, 1.0), (0.0, 0.1)])
def test_extreme_costs_give_finite_plans(factor: float, entropy: float) -> None:
    cost, rows, columns = problem()
    plan = sinkhorn(factor * cost, rows, columns, entropy=entropy)
    assert plan.isfinite().all()
    assert plan.min() >= 0


def test_a_constant_in_the_cost_changes_nothing() -> None:
    cost, rows, columns = problem()
    expected = sinkhorn(cost, rows, columns, entropy=1.0)
    torch.testing.assert_close(sinkhorn(cost + 1000, rows, columns, entropy=1.0), expected, atol=1e-7, rtol=1e-3)


def test_an_empty_batch_and_one_patch_and_one_class() -> None:
    cost, rows, columns = problem(0)
    assert sinkhorn(cost, rows, columns, entropy=1.0).shape == (0, 49, 20)
    one = torch.ones(1)
    torch.testing.assert_close(
        sinkhorn(torch.rand(1, 20), one, columns.new_full((20,), 0.05), entropy=0.1).sum(), one[0]
    )
    torch.testing.assert_close(sinkhorn(torch.rand(9, 1), one.expand(9) / 9, one, entropy=0.1).sum(), one[0])


def test_patch_marginals_follow_the_best_class_of_each_patch() -> None:
    similarity = torch.tensor([[[8.0, 0.0], [0.0, 4.0], [1.0, 2.0]]])
    expected = torch.tensor([[8 / 4, 4 / 4, 2 / 4]]).softmax(-1)
    torch.testing.assert_close(patch_marginals(similarity, temperature=4.0), expected)
