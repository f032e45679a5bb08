"""States: what is copied, what is checked, and the mean by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedmpt.state import Update, check_state, get_state, mean_state, mix_states, num_bytes, num_parameters, set_state
from fedmpt.types import InputError, State


def state(weight: float = 1.0, bias: float = 2.0) -> dict[str, Tensor]:
    return {"weight": torch.full((2, 3), weight), "bias": torch.full((2,), bias)}


def update(client: int, value: float, num_examples: int = 1) -> Update:
    return Update(client=client, state=state(value, -value), num_examples=num_examples, loss=0.0)


def test_a_state_is_a_copy() -> None:
    module = nn.Linear(3, 2)
    before = get_state(module)
    with torch.no_grad():
        module.weight += 1
    assert not torch.equal(before["weight"], module.weight)
    assert not before["weight"].requires_grad
    set_state(module, before)
    assert torch.equal(before["weight"], module.weight)
    assert before["weight"].data_ptr() != module.weight.data_ptr()


def test_setting_keeps_parameters() -> None:
    module = nn.Linear(3, 2)
    parameter = module.weight
    set_state(module, state(0.5))
    assert module.weight is parameter
    assert module.weight.requires_grad
    assert torch.equal(module.weight.detach(), torch.full((2, 3), 0.5))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "^here: tensor 'bias' is missing .1 in all.; is it another method's"),
        ({}, "^here: tensor 'bias' is missing .2 in all."),
        ({**state(), "extra": torch.zeros(1)}, "^here: unknown tensor 'extra' .1 in all."),
        ({**state(), "bias": torch.zeros(3)}, r"^here: tensor 'bias' has shape \(3,\), expected \(2,\)"),
        ({**state(), "bias": torch.zeros(1, 2)}, r"^here: tensor 'bias' has shape \(1, 2\), expected \(2,\)"),
        (
            {**state(), "bias": torch.zeros(2).double()},
            r"^here: tensor 'bias' is torch\.float64, expected torch\.float32",
        ),
        ({**state(), "weight": torch.full((2, 3), float("nan"))}, "^here: tensor 'weight' has 6 values that are not"),
        ({**state(), "bias": torch.tensor([1.0, float("-inf")])}, "^here: tensor 'bias' has 1 values that are not"),
    ],
)
def test_wrong_states_are_named_and_leave_the_module_alone(wrong: State, message: str) -> None:
    module = nn.Linear(3, 2)
    before = get_state(module)
    with pytest.raises(InputError, match=message):
        check_state(wrong, like=state(), source="here")
    with pytest.raises(InputError, match=message):
        set_state(module, wrong, source="here")
    assert torch.equal(module.weight, before["weight"])
    assert torch.equal(module.bias, before["bias"])


def test_mean_by_hand() -> None:
    updates = [update(0, 1.0, 1), update(1, 2.0, 2), update(2, 6.0, 5)]
    uniform, data = mean_state(updates, weighting="uniform"), mean_state(updates, weighting="data")
    assert uniform["weight"].unique().tolist() == [3.0]
    assert uniform["bias"].unique().tolist() == [-3.0]
    assert data["weight"].unique().tolist() == [(1 * 1 + 2 * 2 + 5 * 6) / 8]
    assert uniform["weight"].shape == (2, 3)
    assert uniform["weight"].dtype == torch.float32


def test_mean_of_one_is_that_one_bit_for_bit() -> None:
    only = Update(client=0, state={"a": torch.randn(100)}, num_examples=7, loss=0.0)
    for mean in (mean_state([only], weighting="uniform"), mean_state([only], weighting="data")):
        assert torch.equal(mean["a"], only.state["a"])
        assert mean["a"].data_ptr() != only.state["a"].data_ptr()


def test_mean_is_summed_in_double_precision() -> None:
    """In single precision, ones added to 2^24 are lost one by one."""
    updates = [update(0, 2.0**24), *(update(client, 1.0) for client in range(1, 65))]
    expected = torch.tensor((2.0**24 + 64) / 65)
    assert expected > 2.0**24 / 65 + 0.9
    assert torch.equal(mean_state(updates, weighting="uniform")["weight"], expected.expand(2, 3))


def test_mean_leaves_the_updates_alone() -> None:
    first, second = update(0, 1.0), update(1, 3.0)
    mean_state([first, second], weighting="data")
    assert torch.equal(first.state["weight"], torch.ones(2, 3))
    assert torch.equal(second.state["weight"], torch.full((2, 3), 3.0))


def test_nothing_to_average() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        mean_state([], weighting="uniform")
    with pytest.raises(ValueError, match="nothing to average"):
        mean_state([update(0, 1.0, 0)], weighting="data")


def test_sizes() -> None:
    assert num_parameters(state()) == 8
    assert num_bytes({"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.bfloat16), "c": torch.zeros(())}) == 24
    assert num_parameters({}) == num_bytes({}) == 0


def test_a_mix_lies_between_start_and_end() -> None:
    trained = {**state(3.0, -1.0), "statistics": torch.tensor([8.0]), "count": torch.tensor(10)}
    start = {**state(1.0, 2.0), "statistics": torch.tensor([0.0]), "count": torch.tensor(0)}
    mixed = mix_states(trained, start, 0.25)
    expected = {**state(1.5, 1.25), "statistics": torch.tensor([2.0]), "count": torch.tensor(10)}
    assert mixed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert mixed[name].dtype == tensor.dtype
        torch.testing.assert_close(mixed[name], tensor)


def test_a_mix_of_one_is_what_was_trained_bit_by_bit() -> None:
    trained = {"weight": torch.randn(50, generator=torch.Generator().manual_seed(0)) * 1e-3}
    assert torch.equal(mix_states(trained, {"weight": torch.full((50,), 1e9)}, 1.0)["weight"], trained["weight"])
