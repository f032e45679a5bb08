"""The final model on its way to a site: a checkpoint that `fedmpt predict` takes, with the site's own tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.final import Prediction
from fedmpt.federated.checkpoint import save_checkpoint
from fedmpt.federated.flare.messages import Message
from fedmpt.federated.rounds import Progress
from fedmpt.runs.config import RunConfig
from fedmpt.runs.federation.exchange import STATE, counts_of, part_of, tensors_of_counts, with_prefix
from fedmpt.runs.prediction import COUNTS, save_counts, save_prediction
from fedmpt.state import check_state
from fedmpt.types import InputError, State

MODEL = "model"


def finish_message(
    *,
    record: Mapping[str, Any],
    kept_round: int,
    state: State,
    options: Prediction,
    calibration: Calibration,
    counts: LabelCounts | None,
) -> Message:
    """The final model. ``state`` is the kept round's, not yet mixed; ``counts`` go along where soft ties need them."""
    words = {"record": dict(record), "kept_round": kept_round, "mix": options.mix, "soft_ties": options.soft_ties}
    table = {"thresholds": calibration.thresholds, "scale": calibration.scale, "bias": calibration.bias}
    tensors = with_prefix(STATE, state) | with_prefix("calibration/", table)
    if counts is not None and options.soft_ties:
        tensors |= with_prefix("counts/", tensors_of_counts(counts))
    return Message("finish", words, tensors)


def deliver(message: Message, state: State, personal: State, *, number: int, backbone: str, folder: Path) -> None:
    """Write the final model below a site's ``folder``. ``state`` has been checked, ``personal`` are the site's own,
    ``backbone`` is where its frozen model is.

    Raises:
        InputError: if the message is none of `finish_message`.
    """
    words = message.words
    try:
        config = {**words["record"]["config"], "backbone": backbone}
        RunConfig.from_json(config, source="the coordinator's record")
        record = {**words["record"], "config": config, "site": number}
        names = [str(name) for name in record["class_names"]]
        options = Prediction(mix=float(words["mix"]), soft_ties=float(words["soft_ties"]))
        index = int(words["kept_round"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the coordinator's final model cannot be used ({error!r}); update fedmpt") from error
    options.check()
    table = part_of(message.tensors, "calibration/")
    row = torch.zeros(len(names))
    check_state(table, like={"thresholds": row, "scale": row, "bias": row}, source="the coordinator's calibration")
    counts = part_of(message.tensors, "counts/")
    model = folder / MODEL
    save_checkpoint(model, Progress(index, state, {number: personal} if personal else {}), record)
    if counts:
        save_counts(model / COUNTS, counts_of(counts, len(names), source="the coordinator"), names)
    save_prediction(model, options, Calibration(**table), names)
