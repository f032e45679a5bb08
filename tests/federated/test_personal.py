"""The global model of a method with personal tensors, and the scores of the clients' own models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy_method import CLASSES, WIDTH, Toy, run_rounds, toy

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities, set_global
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.rounds import Federation
from fedmpt.state import get_state, set_state
from fedmpt.types import InputError, State

FEDERATION = Federation(rounds=3, learning_rate=0.5, eval_every=1, participation=0.67)
TRAINING = LocalTraining(batch_size=4)
NAMES = ("north", "south", "west")
PERSONAL: Mapping[int, State] = {
    0: {"offset": torch.tensor([9.0, -9.0, 0.0])},
    2: {"offset": torch.tensor([-2.0, 2.0, 1.0])},
}


def scored(method: Toy, test: FeatureSet, personal: Mapping[int, State] = PERSONAL) -> dict[str, Any]:
    shared, initial = method.split(get_state(method))
    return FinalModel(method, shared, personal, initial).personal_scores(NAMES, test)


def test_each_client_is_scored_with_its_own_tensors_and_newcomers_with_the_initial_ones(test_set: FeatureSet) -> None:
    method = toy(personal=True)
    found = scored(method, test_set)
    pooled = torch.from_numpy(test_set.store.pooled)
    assert [row["name"] for row in found["clients"]] == list(NAMES)
    for client, row in enumerate(found["clients"]):
        offset = PERSONAL.get(client, {"offset": torch.zeros(CLASSES)})["offset"]
        expected = multilabel_scores((pooled @ method.weight.detach().T + offset).sigmoid(), test_set.labels)
        for metric in ("mAP", "CF1", "OF1", "CF1_PR"):
            assert row[metric] == pytest.approx(getattr(expected, metric))
    assert len({row["OF1"] for row in found["clients"]}) == 3
    for metric in ("mAP", "CF1", "OF1", "CF1_PR"):
        assert found[metric] == pytest.approx(sum(row[metric] for row in found["clients"]) / 3)


def test_scoring_clients_leaves_the_method_as_it_was(test_set: FeatureSet) -> None:
    method = toy(personal=True)
    before = get_state(method)
    scored(method, test_set)
    assert all(torch.equal(tensor, before[name]) for name, tensor in get_state(method).items())


def test_text_and_images_are_read_once_a_model(test_set: FeatureSet) -> None:
    """Of four models' worth of clients, two never took part and are the same."""
    method, texts = toy(personal=True), []
    encode = method.encode_text
    method.encode_text = lambda: (texts.append(1), encode())[1]  # type: ignore[method-assign]
    shared, initial = method.split(get_state(method))
    names = (*NAMES, "east")
    FinalModel(method, shared, PERSONAL, initial).personal_scores(names, test_set)
    assert len(texts) == 3
    assert sum(map(len, method.seen)) == 3 * len(test_set)


def test_tensors_that_do_not_fit_name_the_client(test_set: FeatureSet) -> None:
    with pytest.raises(InputError, match="personal tensors of west: tensor 'offset' has shape"):
        scored(toy(personal=True), test_set, {2: {"offset": torch.zeros(7)}})


class Centred(Toy):
    """The global model takes its offset from what the server has."""

    def neutral_personal(self, shared: State, initial: State) -> State:
        return {"offset": initial["offset"] + shared["weight"].mean(1)}


def centred() -> Centred:
    return Centred(CLASSES, WIDTH, personal_offset=True, generator=torch.Generator().manual_seed(0))


def test_the_global_model_has_the_personal_tensors_that_the_method_names(test_set: FeatureSet) -> None:
    method = centred()
    shared, initial = {"weight": torch.full((CLASSES, WIDTH), 3.0)}, {"offset": torch.full((CLASSES,), 0.5)}
    set_global(method, shared, initial=initial, source="here")
    assert torch.equal(method.offset.detach(), torch.full((CLASSES,), 3.5))
    with pytest.raises(InputError, match=r"^here: tensor 'weight' is missing"):
        set_global(method, {}, initial=initial, source="here")


def test_rounds_score_that_model_and_newcomers_start_from_the_initial_tensors(
    clients: list[FeatureSet], test_set: FeatureSet
) -> None:
    method, starts = centred(), []
    update = method.start_round
    method.start_round = lambda index: (starts.append(method.offset.detach().clone()), update(index))[1]  # type: ignore
    options: dict[str, Any] = {"federation": replace(FEDERATION, participation=0.34), "training": TRAINING, "seed": 3}
    seen: set[int] = set()
    for done in run_rounds(method, clients, test_set, **options):
        other = toy(personal=True)
        offset = done.progress.state["weight"].mean(1)
        set_state(other, {**done.progress.state, "offset": offset})
        assert done.scores == multilabel_scores(probabilities(other, test_set), test_set.labels)
        (client,) = done.clients
        assert (starts[-1].abs().max() == 0) == (client not in seen)
        seen.add(client)
    assert len(seen) > 1
