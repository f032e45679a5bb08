"""What comes after the last round: the final model, its calibration, its scores, results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.pairs import measured_pairs
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.scoring import score
from fedmpt.federated.rounds import Best, Progress
from fedmpt.files import write_json
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prediction import keep_counts, save_prediction
from fedmpt.runs.prepare import Prepared
from fedmpt.runs.records import RoundLog, versions
from fedmpt.state import num_bytes, num_parameters
from fedmpt.types import State

FALL = 1.0
"""Points of mAP by which the last round has to be below an earlier one for a note."""


def finish(
    config: RunConfig,
    prepared: Prepared,
    progress: Progress,
    start: State,
    *,
    out: Path,
    log: RoundLog,
    notes: Sequence[str],
) -> tuple[dict[str, Any], list[str]]:
    """Calibrate, score on the test set, write the results. ``start`` is the method's state as it was built.

    Returns the results, and notes on how it went, which the results have too, behind the earlier ``notes``.
    """
    method, class_names, checkpoint = prepared.method, prepared.data.class_names, out / "checkpoint"
    kept, options = progress.kept(config.federation), config.prediction
    ties = Ties.of(prepared.counts) if options.soft_ties else None
    model = FinalModel.of(method, start, kept.state, kept.personal, options=options, ties=ties, source=str(checkpoint))
    calibration = model.calibration(prepared.train)
    keep_counts(checkpoint, prepared.counts, class_names)
    save_prediction(checkpoint, options, calibration, class_names)
    pairs = measured_pairs(prepared.data, prepared.test.labels)
    scores = score(model.probabilities(prepared.test), prepared.test, class_names, calibration=calibration, pairs=pairs)
    if method.personal:
        scores["test_personal"] = model.personal_scores(prepared.partition.names, prepared.test)
    fallen = [] if prepared.held_out is not None else falls(log.mAP)
    results = {
        **scores,
        **_kept(prepared, kept),
        "params": {
            "trainable": num_parameters(start),
            "sent_bytes_per_round": num_bytes(progress.state),
            "clients": len(prepared.clients),
        },
        "clients": [
            {"name": name, "images": len(client)}
            for name, client in zip(prepared.partition.names, prepared.clients, strict=True)
        ],
        "time": {"prepare_s": round(prepared.seconds, 3), "rounds_s": round(log.seconds, 3)},
        "sources": dict(method.sources),
        "notes": [*prepared.data.notes, *notes, *fallen],
        "versions": versions(),
        "skipped_images": [str(path) for part in (prepared.train, prepared.test) for path in part.skipped],
    }
    write_json(out / "results.json", results)
    return results, fallen


def _kept(prepared: Prepared, kept: Progress | Best) -> dict[str, Any]:
    """Which round is scored, where images were held out."""
    if prepared.held_out is None:
        return {}
    number = kept.index if isinstance(kept, Best) else kept.rounds_done
    return {"kept_round": number, "held_out_images": len(prepared.held_out)}


def falls(mAP: Mapping[int, float]) -> list[str]:
    """A note where an evaluated round was better than the last one by more than `FALL`; ``mAP`` is by rounds."""
    if not mAP:
        return []
    last, best = max(mAP), max(mAP, key=lambda index: (mAP[index], -index))
    if mAP[best] <= mAP[last] + FALL:
        return []
    return [
        f"round {best} had {mAP[best]:.1f} mAP on the test set, and the last, round {last}, has {mAP[last]:.1f}; "
        "--keep best keeps the best round by images that the clients hold out, never by the test set"
    ]
