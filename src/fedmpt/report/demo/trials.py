"""Train the demo's methods on spurious scenes and score them on natural and on reversed ones, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from fedmpt.data import load_data
from fedmpt.data.datasets.scenes import CLASS_NAMES, PARTNERS
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.evaluation.calibration import Calibration
from fedmpt.evaluation.context_shift import context_shift
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.rounds import Round
from fedmpt.files import read_json, write_json
from fedmpt.inference.tagger import Tagger, load_trained
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.prepare import Prepared
from fedmpt.runs.run import Watcher, train
from fedmpt.state import Update
from fedmpt.types import InputError, Pair, Split

TITLES: Mapping[str, str] = {"zero-shot": "zero-shot CLIP", "promptfl": "PromptFL", "fedmpt": "FedMPT"}
"""The demo's methods, from the one that trains nothing to ours."""

PAIRS: list[Pair] = [(CLASS_NAMES.index(pair.anchor), CLASS_NAMES.index(pair.partner)) for pair in PARTNERS]
"""What training makes look as if it belonged together: context and target."""

ROUNDS_FILE = "reversed.json"

BACKBONE = "scenes-clip"
# Where they differ from the defaults, which were tuned on photographs.
LEARNING_RATES: Mapping[str, float] = {"promptfl": 0.3}
CHOSEN: Mapping[str, Mapping[str, Any]] = {
    "promptfl": {"num_context": 4, "context_init": "a photo of a"},
    "fedmpt": {"entropy": 0.2, "patch_temperature": 2.0},
}
# Ten clients.
CLIENTS_PER_CLASS = 10 / len(CLASS_NAMES)


@dataclass(frozen=True)
class Trial:
    """What decides the demo's numbers."""

    rounds: int
    seed: int
    spurious: float
    num_train: int
    num_test: int
    world: int = 0
    """Seed of the pictures. Settings are chosen on other worlds than they are reported on."""

    def data(self, test: str) -> str:
        """The data set with the given world of test images."""
        sizes = f"num_train={self.num_train},num_test={self.num_test}"
        return f"scenes:spurious={self.spurious},test={test},{sizes},seed={self.world}"

    def config(self, name: str) -> RunConfig:
        """A method at the settings that were chosen on another world (seed 1 of scenes), see docs/demo.md."""
        start = preset("default", name, self.data("natural"))
        start = replace(start, method=replace(start.method, **CHOSEN.get(name, {})))
        rate = LEARNING_RATES.get(name, start.federation.learning_rate)
        # The demo scores every round itself, on both tests.
        federation = replace(start.federation, rounds=self.rounds, eval_every=self.rounds, learning_rate=rate)
        return replace(start, backbone=BACKBONE, t=CLIENTS_PER_CLASS, seed=self.seed, federation=federation)


@dataclass(frozen=True)
class Outcome:
    """A trained method with its scores on both tests and, for trained methods, after every round.

    ``unseen`` are the pictures of the reversed test, and ``found`` the final probabilities for them, not calibrated.
    """

    trained: Tagger
    results: Mapping[str, Any]
    natural: Mapping[str, Any]
    reversed: Mapping[str, Any]
    rounds: list[dict[str, Any]]
    unseen: FeatureSet
    found: Float[Tensor, "images C"]

    @property
    def calibrated(self) -> Float[Tensor, "images C"]:
        """Calibrated probabilities on the reversed test. The calibration is of the sites' own training pictures."""
        return self._calibration.calibrated(self.found)

    @property
    def thresholds(self) -> Float[Tensor, " C"]:
        """The calibrated probability over which a class is reported."""
        return self._calibration.calibrated(self._calibration.thresholds[None])[0]

    @property
    def reported(self) -> Bool[Tensor, "images C"]:
        """Which classes are over their thresholds there; these too are of the training pictures."""
        return self.found > self._calibration.thresholds

    @property
    def _calibration(self) -> Calibration:
        assert self.trained.calibration is not None, "a finished run has one"
        return self.trained.calibration


def run_trial(
    trial: Trial, config: RunConfig, *, out: Path, cache: Path, watcher: Watcher, every_round: bool = True
) -> Outcome:
    """Train ``config`` into ``out``, going on where an earlier call was stopped, and score it on both tests, also
    after ``every_round`` unless that takes too long.

    Raises:
        InputError: if ``out`` holds a run with other options, or the cache cannot be written.
    """
    if every_round:
        unseen = load_data(trial.data("reversed"), cache=cache, progress=True).test
        watcher = _ScoredWatcher(watcher, unseen, cache=cache, path=out / ROUNDS_FILE)
    results = train(config, out=out, resume=True, cache=cache, watcher=watcher)
    trained = load_trained(out / "checkpoint")
    specs = [trial.data(world) for world in ("natural", "reversed")]
    tests = [trained.features(load_data(spec, cache=cache).test, data=spec, cache=cache) for spec in specs]
    found = [trained.model.probabilities(test) for test in tests]
    natural, reversed_ = (world_scores(*one) for one in zip(found, tests, strict=True))
    rounds = read_json(out / ROUNDS_FILE) if every_round and trained.method.is_trained else []
    return Outcome(trained, results, natural, reversed_, rounds, tests[1], found[1])


def world_scores(found: Float[Tensor, "images C"], test: FeatureSet) -> dict[str, Any]:
    """Scores on one world in percent: at threshold 0.5, and of the pairs that training ties together."""
    scores = multilabel_scores(found, test.labels)
    shift = context_shift(found, test.labels, PAIRS)
    if shift.exclusive is None or shift.false_coactivation is None:
        raise InputError(f"in {len(test)} test pictures no pair can be measured; take more with --num-test")
    return {"mAP": scores.mAP, "CF1": scores.CF1, "OF1": scores.OF1, "shift": shift.to_json(PAIRS, CLASS_NAMES)}


class _ScoredWatcher(Watcher):
    """Also scores both tests after every round, and keeps that in a file, for a run that is stopped and continued."""

    def __init__(self, watcher: Watcher, unseen: Split, *, cache: Path, path: Path) -> None:
        self._watcher, self._unseen, self._cache, self._path = watcher, unseen, cache, path
        self._lines: list[dict[str, Any]] = []

    def started(self, config: RunConfig, prepared: Prepared, *, rounds_done: int) -> None:
        self._method, self._natural = prepared.method, prepared.test
        self._reversed = open_features(prepared.backbone, self._unseen, cache=self._cache, views=prepared.method.views)
        stored = read_json(self._path) if rounds_done and self._path.is_file() else []
        self._lines = [line for line in stored if line["round"] <= rounds_done]
        if not self._lines and prepared.method.is_trained:
            self._score(0)
        self._watcher.started(config, prepared, rounds_done=rounds_done)

    def client_done(self, update: Update) -> None:
        self._watcher.client_done(update)

    def round_done(self, done: Round) -> None:
        self._watcher.round_done(done)
        self._score(done.index)

    def _score(self, index: int) -> None:
        tests = {"natural": self._natural, "reversed": self._reversed}
        worlds = {world: world_scores(probabilities(self._method, test), test) for world, test in tests.items()}
        self._lines.append({"round": index, **worlds})
        write_json(self._path, self._lines)
