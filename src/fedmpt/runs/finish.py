"""What comes after the last round: the final model, its calibration, its scores, results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.pairs import measured_pairs
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.scoring import score
from fedmpt.federated.rounds import Best, Progress, cohort_size
from fedmpt.files import write_json
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prediction import keep_counts, save_prediction
from fedmpt.runs.prepare import Prepared, Ready
from fedmpt.runs.privacy import ended_early, spent
from fedmpt.runs.records import RoundLog, versions
from fedmpt.state import num_bytes, num_parameters
from fedmpt.types import State

FALL = 1.0
"""Points of mAP by which the last round has to be below an earlier one for a note."""


@runtime_checkable
class Scorer(Protocol):
    """Who scores the final model: on images of this process, or by what sites tell."""

    def calibration(self, model: FinalModel) -> Calibration:
        """By the images that clients train on."""
        ...

    def scores(self, model: FinalModel, calibration: Calibration) -> dict[str, Any]:
        """On test images, as results.json has them."""
        ...


@dataclass(frozen=True)
class Pooled:
    """All images are in this process."""

    prepared: Prepared

    def calibration(self, model: FinalModel) -> Calibration:
        return model.calibration(self.prepared.train)

    def scores(self, model: FinalModel, calibration: Calibration) -> dict[str, Any]:
        prepared, test = self.prepared, self.prepared.test
        pairs = measured_pairs(prepared.data, test.labels)
        found = model.probabilities(test)
        scores = score(found, test, prepared.data.class_names, calibration=calibration, pairs=pairs)
        if model.method.personal:
            scores["test_personal"] = model.personal_scores(prepared.partition.names, test)
        return scores


def finish(
    config: RunConfig,
    ready: Ready,
    progress: Progress,
    start: State,
    *,
    scorer: Scorer,
    out: Path,
    log: RoundLog,
    notes: Sequence[str],
) -> tuple[dict[str, Any], list[str]]:
    """Calibrate, score on the test set, write the results. ``start`` is the method's state as it was built.

    Returns the results, and notes on how it went, which the results have too, behind the earlier ``notes``.
    """
    method, checkpoint = ready.method, out / "checkpoint"
    kept, options = progress.kept(config.federation), config.prediction
    ties = Ties.of(ready.counts) if options.soft_ties and ready.counts else None
    model = FinalModel.of(method, start, kept.state, kept.personal, options=options, ties=ties, source=str(checkpoint))
    calibration = scorer.calibration(model)
    keep_counts(checkpoint, ready.counts, ready.class_names)
    save_prediction(checkpoint, options, calibration, ready.class_names)
    scores = scorer.scores(model, calibration)
    cohort = cohort_size(len(ready.client_names), config.federation.participation)
    fallen = [*([] if ready.num_held_out else falls(log.mAP)), *ended_early(config, progress)]
    results = {
        **scores,
        **_kept(ready, kept),
        **spent(config, progress, at_least=ready.min_clients or cohort),
        "params": {
            "trainable": num_parameters(start),
            "sent_bytes_per_round": num_bytes(progress.state),
            "clients": len(ready.client_names),
        },
        "clients": [
            {"name": name, "images": images}
            for name, images in zip(ready.client_names, ready.client_images, strict=True)
        ],
        "time": {"prepare_s": round(ready.seconds, 3), "rounds_s": round(log.seconds, 3)},
        "sources": dict(method.sources),
        "notes": [*ready.notes, *notes, *fallen],
        "versions": versions(),
        "skipped_images": list(ready.skipped),
    }
    write_json(out / "results.json", results)
    return results, fallen


def _kept(ready: Ready, kept: Progress | Best) -> dict[str, Any]:
    """Which round is scored, where images were held out."""
    if not ready.num_held_out:
        return {}
    number = kept.index if isinstance(kept, Best) else kept.rounds_done
    return {"kept_round": number, "held_out_images": ready.num_held_out}


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
