"""Options for a user's own images, tried one after the other on held-out training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.pairs import measured_pairs
from fedmpt.evaluation.final import FinalModel, Prediction
from fedmpt.evaluation.metrics import weighted_average_precision
from fedmpt.evaluation.scoring import score
from fedmpt.federated.balance import Balance
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.files import default_cache
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared, prepare
from fedmpt.runs.records import check_writable
from fedmpt.runs.run import Watcher, check_goes_on, is_finished, record_of, train
from fedmpt.seeding import generator
from fedmpt.state import get_state
from fedmpt.types import DivergedError, InputError

STEP = 3.0
MIXES = (1.0, 0.8, 0.6)
SOFT_TIES = (0.25, 0.5, 1.0)
SOFT_TIES_COST = 1.0
"""Points of balanced mAP that soft ties may cost where they are offered."""
DIVERGED = float("-inf")


@dataclass(frozen=True)
class Trial:
    """Options that were tried, and what they scored on the held-out images.

    Attributes:
        config: the run, with the options; `tried_options` gives them.
        mAP, CF1: in percent, CF1 at threshold 0.5; None where training diverged.
        balanced_mAP: mAP in percent where labels weigh as in the balanced loss, an estimate of mAP where ties are cut.
        false_coactivation: in percent, where the data have a cut tie, see `fedmpt.evaluation.context_shift`.
        seconds: of the rounds; None where nothing was trained for it.
    """

    config: RunConfig
    mAP: float | None = None
    balanced_mAP: float | None = None
    CF1: float | None = None
    false_coactivation: float | None = None
    seconds: float | None = None

    @property
    def score(self) -> float:
        """Mean of the two mAP; below all others where training diverged."""
        if self.mAP is None or self.balanced_mAP is None:
            return DIVERGED
        return (self.mAP + self.balanced_mAP) / 2

    def to_json(self) -> dict[str, Any]:
        return {"options": tried_options(self.config), **{k: v for k, v in vars(self).items() if k != "config"}}


@dataclass(frozen=True)
class Tuned:
    """All trials in their order, the best one, and the same with soft ties where they cost little; else None."""

    trials: tuple[Trial, ...]
    best: Trial
    soft: Trial | None


class TuneWatcher(Watcher):
    """Who is told how tuning goes; this one does nothing with it."""

    def trial_started(self, number: int, most: int, label: str) -> None:
        """Before a run, which may be there already: its number, from 1, how many there are at most, its options."""

    def trial_done(self, trial: Trial) -> None: ...


def tune(
    config: RunConfig,
    *,
    out: Path | str,
    cache: Path | str | None = None,
    watcher: TuneWatcher | None = None,
    show_progress: bool = True,
) -> Tuned:
    """Try options around ``config``, one after the other, on the training images that its ``validation`` holds out.

    Each time the best so far is kept, and of equals the one of ``config``. First the learning rate times 1/3, 1 and 3,
    and a further step if an end is best. Then the values of `MethodConfig.tunable`. Then ``mix`` on the best run. Last,
    soft ties: the strongest that cost at most `SOFT_TIES_COST` points of balanced mAP. The test set is not read.

    Every run has a folder of its own in ``out``. A run that is there is taken as it is, one that was stopped goes on.

    Raises:
        InputError: as `train`; if a run in ``out`` is of other data or another backbone; for a config without
            validation or with options that are tried last; for a method that trains nothing; or if no learning rate
            leads to a result.
    """
    out, cache = Path(out), Path(cache or default_cache())
    _check(config, out)
    base = prepare(config, cache=cache, show_progress=show_progress, must_train=True)
    most = 4 + sum(map(len, _other_values(config).values()))  # Three rates and perhaps a fourth, then all others.
    runs = _Runs(base, out, cache, watcher or TuneWatcher(), most=most)
    return search(config, runs.trained, runs.scored)


def _check(config: RunConfig, out: Path) -> None:
    check_writable(out, kind="folder")
    if config.partition is not None:
        raise InputError(
            "--partition divides all training images, and fedmpt tune holds some out; give a setting in its place, "
            "such as --setting dirichlet --clients 4"
        )
    if not config.validation:
        raise InputError("--validation must be above 0: options are compared on held-out training images")
    for name, values in {"mix": (1.0, config.method.mix), "soft_ties": (0.0,)}.items():
        if getattr(config.prediction, name) not in values:
            raise InputError(f"--{name.replace('_', '-')} is one of the options that are tried; leave it out")


class _Runs:
    """Trains with options and scores what was trained, on the images that ``base`` has in place of the test set."""

    def __init__(self, base: Prepared, out: Path, cache: Path, watcher: TuneWatcher, *, most: int) -> None:
        self._base, self._out, self._cache, self._watcher = base, out, cache, watcher
        self._ties = Ties.of(base.counts)
        self._weights = Balance.of(base.counts).weights(base.test.labels)
        self._pairs = measured_pairs(base.data, base.test.labels)
        self._number, self._most = 0, most

    def trained(self, config: RunConfig) -> Trial:
        self._number += 1
        self._watcher.trial_started(self._number, self._most, _label(config))
        was_finished = is_finished(self._folder(config))
        try:
            results = train(
                config,
                out=self._folder(config),
                resume=True,
                cache=self._cache,
                watcher=self._watcher,
                show_progress=False,
            )
            if was_finished:
                self._check(config)
            trial = self.scored(config, seconds=results["time"]["rounds_s"])
        except DivergedError:
            trial = Trial(config)
        self._watcher.trial_done(trial)
        return trial

    def scored(self, config: RunConfig, *, seconds: float | None = None) -> Trial:
        """The run of ``config``, which is there, as its options predict."""
        base, folder = self._base, self._folder(config) / "checkpoint"
        method = config.method.build(base.backbone, base.data.class_names, generator=generator(config.seed, "init"))
        kept = load_checkpoint(folder).progress.kept(config.federation)
        model = FinalModel.of(
            method,
            get_state(method),
            kept.state,
            kept.personal,
            options=config.prediction,
            ties=self._ties,
            source=str(folder),
        )
        found = model.probabilities(base.test)
        scores = score(found, base.test, base.data.class_names, calibration=None, pairs=self._pairs)
        moved = scores.get("context_shift", {}).get("moved", {})
        return Trial(
            config,
            mAP=scores["test"]["mAP"],
            balanced_mAP=weighted_average_precision(found, base.test.labels, self._weights),
            CF1=scores["test"]["CF1"],
            false_coactivation=moved.get("false_coactivation"),
            seconds=seconds,
        )

    def _check(self, config: RunConfig) -> None:
        """Whether a finished run, which `train` leaves as it is, was trained on what is there now."""
        folder, now = self._folder(config) / "checkpoint", record_of(config, self._base.ready)
        try:
            check_goes_on(load_checkpoint(folder).record, now, self._base.ready, source=str(folder))
        except InputError as error:
            raise InputError(f"--out {self._out} has trials of something else, give another --out; {error}") from error

    def _folder(self, config: RunConfig) -> Path:
        """Of the run with these options of training, whatever those of prediction are."""
        return self._out / _label(config).replace(", ", "-").replace(" ", "-")


def search(start: RunConfig, trained: Callable[[RunConfig], Trial], scored: Callable[[RunConfig], Trial]) -> Tuned:
    """The order of trials that `tune` describes. ``trained`` trains and scores, ``scored`` scores what was trained.

    Raises:
        InputError: if training diverges at all learning rates.
    """
    trials: list[Trial] = []

    def tried(best: Trial, name: str, values: Sequence[float], trial_of: Callable[[RunConfig], Trial]) -> list[Trial]:
        found = [trial_of(with_option(best.config, name, value)) for value in values]
        trials.extend(found)
        return found

    best, rate = trained(start), start.federation.learning_rate
    trials.append(best)
    best = _best([best, *tried(best, "learning_rate", [_rounded(rate / STEP), _rounded(rate * STEP)], trained)])
    if best.score == DIVERGED:
        raise InputError(f"training diverged at all learning rates; give one far below --learning-rate {rate:g}")
    if (chosen := best.config.federation.learning_rate) != rate:
        best = _best([best, *tried(best, "learning_rate", [_rounded(chosen * chosen / rate)], trained)])
    for name, values in _other_values(start).items():
        best = _best([best, *tried(best, name, values, trained)])
    mixes = [mix for mix in MIXES if mix != start.prediction.mix]
    best = _best([best, *tried(best, "mix", mixes, scored)])
    soft = tried(best, "soft_ties", SOFT_TIES, scored)
    return Tuned(tuple(trials), best, _strongest(best, soft))


def _other_values(config: RunConfig) -> dict[str, list[float]]:
    """Values to try of the method's own options, beside those that ``config`` has."""
    method = config.method
    return {name: [v for v in values if v != getattr(method, name)] for name, values in method.tunable().items()}


def _label(config: RunConfig) -> str:
    """Options of training in words, such as ``"learning-rate 0.05, entropy 0.3"``."""
    trained = {name: value for name, value in tried_options(config).items() if name not in asdict(Prediction())}
    return ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in trained.items())


def tried_options(config: RunConfig) -> dict[str, float]:
    """The options that are tried, by name: ``{"learning_rate": 0.05, "mix": 1.0, "soft_ties": 0.0}``."""
    own = {name: getattr(config.method, name) for name in config.method.tunable()}
    return {"learning_rate": config.federation.learning_rate, **own, **asdict(config.prediction)}


def with_option(config: RunConfig, name: str, value: float) -> RunConfig:
    """The config with another value of an option, whichever part of it has the option."""
    part = next(part for part in ("federation", "prediction", "method") if hasattr(getattr(config, part), name))
    return replace(config, **{part: replace(getattr(config, part), **{name: value})})


def _strongest(plain: Trial, soft: Sequence[Trial]) -> Trial | None:
    """The last of ``soft``, which are in order of strength, that costs at most `SOFT_TIES_COST`; None without one, or
    where it changes nothing since no classes are tied."""
    assert plain.balanced_mAP is not None
    least = plain.balanced_mAP - SOFT_TIES_COST
    found = next((trial for trial in reversed(soft) if (trial.balanced_mAP or 0.0) >= least), None)
    return None if found is None or found.score == plain.score else found


def _best(trials: Sequence[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.score)


def _rounded(rate: float) -> float:
    """To two digits, so that the rate is as it is shown."""
    return float(f"{rate:.2g}")
