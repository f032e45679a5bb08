"""A site's own count of its noised answers: the same question gets the same numbers, and the count never falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from federation_bed import plan_of, site_handle, write_sites
from safetensors.torch import save

from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.flare.messages import Message
from fedmpt.federated.privacy import Privacy
from fedmpt.federated.rounds import Ask, Federation
from fedmpt.files import read_json
from fedmpt.runs.config import preset
from fedmpt.runs.federation.exchange import train_message
from fedmpt.runs.federation.noised import COUNT, KEPT, NoisedStore
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.site import Site
from fedmpt.types import InputError, State


def asked(index: int, value: float = 0.0, rate: float = 0.1) -> Ask:
    return Ask(index, (0,), {"x": torch.full((3,), value)}, rate, {})


def store_in(folder: Path, **options: float) -> NoisedStore:
    return NoisedStore(folder, Privacy(dp_noise=3.0, dp_at="sites", **options), at_least=4)  # type: ignore[arg-type]


def draw() -> State:
    return {"x": torch.randn(3)}


def same(one: State | None, other: State) -> bool:
    return one is not None and torch.equal(one["x"], other["x"])


def test_a_question_is_told_by_round_learning_rate_and_state(tmp_path: Path) -> None:
    store, answer = store_in(tmp_path), draw()
    store.add(asked(1), answer)
    assert same(store_in(tmp_path).find(asked(1)), answer), "after a restart"
    for other in (asked(2), asked(1, rate=0.2), asked(1, value=1e-7)):
        assert store.find(other) is None


def test_the_last_answers_are_kept_and_an_older_one_counts_anew(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for index in range(1, KEPT + 3):
        store.add(asked(index), draw())
    assert len(list(tmp_path.glob("*.safetensors"))) == KEPT
    assert store.find(asked(2)) is None
    assert store.find(asked(3)) is not None
    store.add(asked(2), draw())
    assert read_json(tmp_path / COUNT)["answers"] == KEPT + 3


def test_a_budget_is_held_after_a_restart_and_old_answers_are_still_given(tmp_path: Path) -> None:
    two = Privacy(dp_noise=3.0).epsilon(2)
    store = store_in(tmp_path, dp_budget=two * 1.01)
    for index in (1, 2):
        assert store.refusal(asked(index)) == ""
        store.add(asked(index), draw())
    again = store_in(tmp_path, dp_budget=two * 1.01)
    assert again.refusal(asked(2)) == ""
    assert f"--dp-budget {two * 1.01:g} is spent" in again.refusal(asked(3))
    assert f"epsilon is {two:.3g} after 2 answers" in again.refusal(asked(3))
    assert again.spent().startswith(f"epsilon so far {two:.3g} of at most {two * 1.01:g}, and ")


def test_a_kill_before_the_state_is_written_has_counted_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fedmpt.runs.federation.noised.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            store_in(tmp_path).add(asked(1), draw())
    again = store_in(tmp_path)
    assert again.find(asked(1)) is None
    again.add(asked(1), draw())
    assert read_json(tmp_path / COUNT)["answers"] == 2


@pytest.mark.parametrize("content", [None, "", "[]", '{"answers": 0, "kept": {"a": "b"}}', '{"answers": "9"}'])
def test_a_lost_count_is_no_count_of_zero(tmp_path: Path, content: str | None) -> None:
    store_in(tmp_path).add(asked(1), draw())
    (tmp_path / COUNT).unlink()
    if content is not None:
        (tmp_path / COUNT).write_text(content)
    with pytest.raises(InputError, match=r"answers.json is missing or damaged .* Restore it from a copy"):
        store_in(tmp_path)


def test_a_damaged_state_is_named_and_new_once_it_is_deleted(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.add(asked(1), draw())
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x00\x01")
    with pytest.raises(InputError, match=rf"{path.name} is damaged .* or delete it"):
        store.find(asked(1))
    path.unlink()
    assert store.find(asked(1)) is None


@pytest.fixture
def plan(tiny_clip_folder: Path) -> Plan:
    config = replace(
        preset("default", "fedpgp", "sites"),
        backbone=str(tiny_clip_folder),
        federation=Federation(rounds=9, learning_rate=0.1, weighting="uniform"),
        aggregation=Aggregation(clip_norm=0.1),
        privacy=Privacy(dp_noise=2.0, dp_at="sites", dp_budget=Privacy(dp_noise=2.0).epsilon(2)),
    )
    return plan_of(config)


Start = Callable[[], tuple[Site, State]]


@pytest.fixture
def start(plan: Plan, tmp_path: Path) -> Start:
    """The site ash as it is after a start, entered, with the shared tensors that it begins with."""
    write_sites(tmp_path / "data")

    def start() -> tuple[Site, State]:
        site = site_handle(plan, "ash", tmp_path / "data/ash", kit=tmp_path / "kit", cache=tmp_path / "cache").__self__  # type: ignore[attr-defined]
        site.handle(Message("enter", {"class_names": ["cat", "dog", "table"], "rounds_done": 0}))
        method = site._in_federation().method
        return site, {name: tensor.clone() for name, tensor in method.split(method.state_dict())[0].items()}

    return start


def test_a_coordinator_that_asks_to_and_fro_gets_nothing_new(start: Start, tmp_path: Path) -> None:
    site, shared = start()
    other = {name: tensor + 0.01 for name, tensor in shared.items()}

    def answer(site: Site, state: State, index: int = 1) -> tuple[str, bytes]:
        found = site.handle(train_message(Ask(index, (0,), state, 0.1, {}), [0], wire="float32", best=0))
        return str(found.words), save(dict(found.tensors))

    def personal() -> bytes:
        return (tmp_path / "kit/personal/round-000001.safetensors").read_bytes()

    first, own = answer(site, shared), personal()
    second = answer(site, other)
    assert first != second
    assert (answer(site, shared), personal()) == (first, own)
    site, _ = start()
    assert answer(site, other) == second
    assert (answer(site, shared), personal()) == (first, own)
    with pytest.raises(InputError, match=r"spent by this site's own count: epsilon is .* after 2 answers"):
        answer(site, shared, index=2)
    assert not (tmp_path / "kit/personal/round-000002.safetensors").exists()
