"""What the coordinator and its sites say to each other in a round, as messages, and every check of what arrives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.data.pairs import MAX_CANDIDATES
from fedmpt.evaluation.calibration import NUM_BINS
from fedmpt.federated.client import LocalResult
from fedmpt.federated.flare.messages import Message
from fedmpt.federated.rounds import Ask
from fedmpt.federated.wire import Wire, changes, restored
from fedmpt.state import Update, check_state
from fedmpt.types import DivergedError, InputError, Pair, State

STATE, PERSONAL = "state/", "personal/"
MAX_IMAGES = 10**12
"""More than any site has; a number of images that is larger is a fault."""
MAX_LOSS = 1e30
"""A loss that is larger is a fault. It may come as a whole number that no float can hold."""


def with_prefix(prefix: str, state: State) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def number_in(message: Message, name: str) -> float:
    """A number, 0 or more, among the coordinator's words. Raises InputError where there is none."""
    value = message.words.get(name)
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"the coordinator says {value!r} for {name}, and a number was expected; update fedmpt")
    return value


def part_of(tensors: State, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def train_message(ask: Ask, clients: Sequence[int], *, wire: Wire, best: int) -> Message:
    """Asks for the updates of ``clients``. ``best`` is the best round so far, 0 without one: what a client keeps for
    itself of that round is still needed."""
    tensors = with_prefix(STATE, shortened(ask.state, wire))
    for client in clients:
        tensors |= with_prefix(f"{PERSONAL}{client}/", ask.personal.get(client, {}))
    words = {"round": ask.index, "learning_rate": ask.learning_rate, "clients": list(clients), "best": best}
    return Message("train", words, tensors)


def shortened(state: State, wire: Wire) -> State:
    """A state in the number format in which it travels."""
    if wire == "float32":
        return state
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def received_state(message: Message, like: State, *, wire: Wire, source: str) -> dict[str, Tensor]:
    """The server's state in a message, in the number formats of ``like``. Raises InputError if it does not fit."""
    sent = part_of(message.tensors, STATE)
    check_state(sent, like=shortened(like, wire), source=source)
    return {name: tensor.to(like[name].dtype) for name, tensor in sent.items()}


def ask_of(message: Message, like: State, *, wire: Wire) -> tuple[Ask, int]:
    """The inverse of `train_message` at a site, and ``best``. Raises InputError for what is no such message."""
    words, source = message.words, "the coordinator"
    try:
        clients = tuple(int(client) for client in words["clients"])
        index, best, rate = int(words["round"]), int(words["best"]), float(words["learning_rate"])
        if index < 1 or not clients or not rate > 0:
            raise ValueError(f"round {index}, clients {clients}, learning rate {rate}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source} asks for a round in words that nobody knows ({error!r}); update fedmpt") from error
    state = received_state(message, like, wire=wire, source=f"{source}, round {index}")
    own = {client: part_of(message.tensors, f"{PERSONAL}{client}/") for client in clients}
    return Ask(index, clients, state, rate, {client: tensors for client, tensors in own.items() if tensors}), best


def update_message(results: Sequence[LocalResult], received: State, *, wire: Wire, with_personal: bool) -> Message:
    """Results of local training from the state ``received``; personal tensors stay unless ``with_personal``."""
    tensors: dict[str, Tensor] = {}
    rows = []
    for result in results:
        update = result.update
        tensors |= with_prefix(f"{STATE}{update.client}/", changes(update, received, wire))
        if with_personal:
            tensors |= with_prefix(f"{PERSONAL}{update.client}/", result.personal)
        rows.append({"client": update.client, "num_examples": update.num_examples, "loss": update.loss})
    return Message("updates", {"updates": rows}, tensors)


def results_of(message: Message, ask: Ask, *, clients: Sequence[int], wire: Wire, source: str) -> list[LocalResult]:
    """The inverse of `update_message` at the server. Raises InputError naming ``source`` if it is not as asked."""
    if message.kind != "updates":
        raise InputError(f"{source} answers with {message.kind!r} where updates were asked for; update fedmpt there")
    rows = message.words.get("updates")
    if not isinstance(rows, list) or [_client(row) for row in rows] != list(clients):
        raise InputError(f"{source} does not answer for the clients that it was asked for")
    return [_result(row, message, ask, wire=wire, source=source) for row in rows]


def _client(row: Any) -> Any:
    return row.get("client") if isinstance(row, Mapping) else None


def _result(row: Mapping[str, Any], message: Message, ask: Ask, *, wire: Wire, source: str) -> LocalResult:
    client, images, loss = row["client"], row.get("num_examples"), row.get("loss")
    if not isinstance(images, int) or not 0 < images < MAX_IMAGES:
        raise InputError(f"{source} says it has {images!r} images")
    if not isinstance(loss, (int, float)) or not -MAX_LOSS < loss < MAX_LOSS:
        raise DivergedError(f"{source} reports a loss of {loss!r}; a lower learning rate usually helps")
    sent = part_of(message.tensors, f"{STATE}{client}/")
    check_state(sent, like=shortened(ask.state, wire), source=source)
    state = restored(sent, ask.state, wire)
    check_state(state, like=ask.state, source=source)
    return LocalResult(Update(client, state, images, float(loss)), part_of(message.tensors, f"{PERSONAL}{client}/"))


def tensors_of_counts(counts: LabelCounts) -> dict[str, Tensor]:
    """Counts of labels as they travel."""
    images = torch.tensor([counts.num_images])
    return {"images": images, "singles": counts.singles, "pairs": counts.pairs, "known": counts.known}


def counts_of(tensors: State, num_classes: int, *, source: str) -> LabelCounts:
    """The inverse of `tensors_of_counts`. Raises InputError naming ``source`` unless they can be counts of labels."""
    whole = torch.zeros(num_classes, dtype=torch.int64)
    like = {"images": whole[:1], "singles": whole, "pairs": whole[:, None] + whole, "known": whole[:, None] + whole}
    check_state(tensors, like=like, source=f"{source}, counts of labels")
    images, pairs, known = int(tensors["images"]), tensors["pairs"], tensors["known"]
    most, each = tensors["singles"].minimum(tensors["singles"][:, None]), known.diagonal()
    is_possible = (
        0 <= images < MAX_IMAGES
        and bool((tensors["singles"] <= each).all())
        and bool((each <= images).all() and (known <= each.minimum(each[:, None])).all())
        and bool((pairs <= most).all() and (pairs <= known).all() and (pairs >= 0).all())
        and torch.equal(pairs, pairs.T)
        and torch.equal(known, known.T)
        and not pairs.diagonal().any()
    )
    if not is_possible:
        raise InputError(f"{source}: the counts of labels contradict each other; count anew")
    return LabelCounts(images, tensors["singles"], pairs, known)


def pairs_of(message: Message, num_classes: int, *, source: str) -> list[Pair]:
    """The pairs of classes whose test images a site is to count. Raises InputError unless they can be such."""
    found = message.words.get("pairs", [])
    if not isinstance(found, list) or len(found) > MAX_CANDIDATES:
        raise InputError(f"{source} asks for pairs that are no list of at most {MAX_CANDIDATES}; update fedmpt")
    for pair in found:
        is_pair = isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
        if not (is_pair and pair[0] != pair[1] and all(0 <= one < num_classes for one in pair)):
            raise InputError(
                f"{source} asks for {pair!r}, which does not name two of the classes 0 to {num_classes - 1}; "
                "update fedmpt"
            )
    return [(context, target) for context, target in found]


def histograms_of(tensors: State, num_classes: int, *, source: str) -> Int64[Tensor, "2 C bins"]:
    """Histograms of scores that came from a site. Raises InputError naming ``source`` unless they can be such."""
    check_state(tensors, like={"histograms": torch.zeros(2, num_classes, NUM_BINS, dtype=torch.int64)}, source=source)
    found = tensors["histograms"]
    if not bool(((found >= 0) & (found < MAX_IMAGES)).all()):
        raise InputError(f"{source}: its histograms of scores hold numbers that no number of images can be")
    return found
