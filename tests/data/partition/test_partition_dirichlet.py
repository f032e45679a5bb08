from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fedmpt.data.partition import partition_split
from fedmpt.data.partition.by_labels import Random, _ends, _one_label_each, _shares
from fedmpt.types import InputError, Split


def random_labels(num_images: int = 300, num_classes: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (num_images, num_classes), generator=generator, dtype=torch.int8)


def one_label_each(num_images: int, num_classes: int) -> Tensor:
    return torch.eye(num_classes, dtype=torch.int8)[torch.arange(num_images) % num_classes]


def dirichlet(labels: Tensor, **options: Any) -> tuple[Tensor, ...]:
    split = Split("train", tuple(Path(f"{row}.jpg") for row in range(len(labels))), labels)
    return partition_split(split, setting="dirichlet", **options).rows


@pytest.mark.parametrize("alpha", [1e-9, 0.01, 0.5, 1, 1e9])
@pytest.mark.parametrize(("num_clients", "min_images"), [(1, None), (7, None), (300, None), (7, 40), (3, 100)])
def test_every_image_has_one_client_and_every_client_enough(
    alpha: float, num_clients: int, min_images: int | None
) -> None:
    clients = dirichlet(random_labels(), alpha=alpha, num_clients=num_clients, min_images=min_images)
    assert torch.equal(torch.cat(clients).sort().values, torch.arange(300))
    assert len(clients) == num_clients
    for rows in clients:
        assert rows.dtype == torch.int64
        assert len(rows) >= (min_images or 1)
        assert torch.equal(rows, rows.sort().values)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 3.0])
def test_shares_have_the_marginal_distribution_of_a_dirichlet(alpha: float) -> None:
    random = Random(0)
    drawn = np.stack([_shares(4, alpha, random) for _ in range(2000)])
    assert np.allclose(drawn.sum(1), 1)
    for client in (0, 3):
        assert stats.kstest(drawn[:, client], stats.beta(alpha, 3 * alpha).cdf).pvalue > 0.001


@pytest.mark.parametrize(("alpha", "largest"), [(1e-9, 1), (1e9, 1 / 50)])
def test_shares_are_numbers_for_extreme_alphas(alpha: float, largest: float) -> None:
    shares = _shares(50, alpha, Random(0))
    assert np.isfinite(shares).all()
    assert shares.sum() == pytest.approx(1)
    assert shares.max() == pytest.approx(largest, rel=1e-3)


def test_parts_are_the_exact_sizes_rounded_up_or_down_and_right_in_the_mean() -> None:
    shares, random = np.array([0.05, 0.55, 0.4]), Random(0)
    sizes = np.stack([np.diff(_ends(shares, 7, random), prepend=0) for _ in range(4000)])
    assert (sizes.sum(1) == 7).all()
    assert (np.abs(sizes - 7 * shares) < 1).all()
    assert sizes.mean(0) == pytest.approx(7 * shares, abs=0.05)


def test_an_image_goes_by_any_of_its_labels_alike() -> None:
    labels = torch.tensor([[1, 0, 1, -1, 1], [0, 0, -1, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.int8).repeat(3000, 1)
    chosen = _one_label_each(labels == 1, Random(0)).reshape(3000, 3)
    counts = np.bincount(chosen[:, 0], minlength=6)
    assert counts[[1, 3, 5]].tolist() == [0, 0, 0]
    assert counts[[0, 2, 4]] == pytest.approx([1000, 1000, 1000], abs=100)
    assert (chosen[:, 1] == 5).all()
    assert (chosen[:, 2] == 1).all()


def test_a_large_alpha_splits_every_label_evenly_and_images_without_label_too() -> None:
    labels = torch.cat([one_label_each(400, 4), torch.zeros(100, 4, dtype=torch.int8)])
    for rows in dirichlet(labels, num_clients=5, alpha=1e9):
        assert labels[rows].sum(0).tolist() == pytest.approx([20, 20, 20, 20], abs=1)
        assert int((labels[rows].sum(1) == 0).sum()) == pytest.approx(20, abs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5}, "the dirichlet setting needs num_clients, at least 1; got None"),
        ({"num_clients": 3}, r"needs alpha, at least 1e-09 \(100 is even\); got None"),
        ({"num_clients": 3, "alpha": 0.0}, "got 0.0"),
        ({"num_clients": 3, "alpha": float("nan")}, "got nan"),
        ({"num_clients": 3, "alpha": float("inf")}, "got inf"),
        ({"num_clients": 301, "alpha": 1.0}, "301 clients cannot share 300 images"),
        ({"num_clients": 3, "alpha": 1.0, "min_images": 0}, "min_images is 0; it must be at least 1"),
        ({"num_clients": 3, "alpha": 1.0, "min_images": 101}, "have 101 of 300 images each; .* at most 100"),
        ({"num_clients": 3, "alpha": 1.0, "t": 0.5}, "t belongs to the heterogeneous setting; dirichlet takes"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dirichlet(random_labels(), **options)
