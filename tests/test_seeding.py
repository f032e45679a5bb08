"""Streams are fixed by identity: these numbers may only change when results may."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest
import torch

from fedmpt.seeding import generator

# Of torch's CPU generator with the identity used below.
EXPECTED_SEED = 2085245011479796118
EXPECTED_RAND = [0.7737525105476379, 0.4351472854614258, 0.6738457083702087, 0.7726853489875793]


def test_a_seed_is_the_hash_of_who_draws() -> None:
    """Recomputed here, so that a change of the derivation, which changes every result, does not go unseen."""
    digest = hashlib.sha256(b"7/shuffle/3/11").digest()
    assert generator(7, "shuffle", 3, 11).initial_seed() == int.from_bytes(digest[:8], "little") % 2**63
    assert generator(7, "shuffle", 3, 11).initial_seed() == EXPECTED_SEED


def test_first_numbers() -> None:
    found = torch.rand(4, generator=generator(7, "shuffle", 3, 11)).tolist()
    assert found == pytest.approx(EXPECTED_RAND, abs=1e-7)


def test_identities_have_streams_of_their_own() -> None:
    identities = [
        (seed, purpose, *rest)
        for seed, purpose in product(range(3), ("init", "cohort", "shuffle"))
        for rest in [(), *product(range(4)), *product(range(4), range(12))]
    ]
    streams = {tuple(torch.rand(3, generator=generator(*identity)).tolist()) for identity in identities}
    assert len(streams) == len(identities)


def test_numbers_of_an_identity_do_not_run_together() -> None:
    assert generator(0, "shuffle", 1, 23).initial_seed() != generator(0, "shuffle", 12, 3).initial_seed()
    assert generator(1, "shuffle", 2).initial_seed() != generator(12, "shuffle").initial_seed()


def test_streams_do_not_touch_each_other_or_the_global_state() -> None:
    before = torch.random.get_rng_state()
    first, second = generator(0, "cohort", 1), generator(0, "cohort", 1)
    torch.rand(10, generator=first)
    assert torch.equal(torch.rand(10, generator=second), torch.rand(10, generator=generator(0, "cohort", 1)))
    assert torch.equal(torch.random.get_rng_state(), before)
