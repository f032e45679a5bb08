"""Options for a user's own images, tried one after the other on held-out training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from fedmpt.runs.run import Watcher, train
from fedmpt.seeding import generator
from fedmpt.state import get_state
from fedmpt.types import DivergedError, InputError

RATE_STEP = 3.0
MIXES = (0.7, 0.5)
SOFT_TIES = (0.25, 0.5, 1.0)
SOFT_TIES_COST = 1.0
"""Points of balanced mAP that soft ties may cost where they are offered."""


@dataclass(frozen=True)
class Trial:
    """Options that were tried, and what they scored on the held-out images.

    Attributes:
        config: the run, with the options.
        options: those that are tried, by name: ``{"learning_rate": 0.05, "mix": 1.0, "soft_ties": 0.0}``.
        mAP, CF1: in percent, at threshold 0.5; None where training diverged.
        balanced_mAP: mAP in percent where labels weigh as in the balanced loss, an estimate of mAP where ties are cut.
        false_coactivation: in percent, where the data have a cut tie, see `fedmpt.evaluation.context_shift`.
        seconds: of the rounds; None where nothing was trained for it.
    """

    config: RunConfig
    options: Mapping[str, float]
    mAP: float | None = None
    balanced_mAP: float | None = None
    CF1: float | None = None
    false_coactivation: float | None = None
    seconds: float | None = None

    @property
    def score(self) -> float:
        """Mean of the two mAP; below all others where training diverged."""
        if self.mAP is None or self.balanced_mAP is None:
            return float("-inf")
        return (self.mAP + self.balanced_mAP) / 2

    def to_json(self) -> dict[str, Any]:
        words = {key: value for key, value in asdict(self).items() if key not in ("config", "options")}
        return {"options": dict(self.options), **words}


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
    and a further step if an end is best. Then the values of `MethodConfig.tunable`. Then ``mix``, on the best run. Last,
    soft ties: the strongest that cost at most `SOFT_TIES_COST` points of balanced mAP. The test set is not read.

    Every run has a folder of its own in ``out``. A run that is there is taken as it is, one that was stopped goes on.

    Raises:
        InputError: as `train`; for a config without validation or with options that are tried last; for a method that
            trains nothing; or if no learning rate leads to a result.
    """
    out, cache = Path(out), Path(cache or default_cache())
    _check(config, out)
    base = prepare(config, cache=cache, show_progress=show_progress, must_train=True)
    return _Search(config, base, out, cache, watcher or TuneWatcher()).found()


def _check(config: RunConfig, out: Path) -> None:
    check_writable(out, kind="folder")
    if not config.validation:
        raise InputError("--validation must be above 0: options are compared on held-out training images")
    for name, value in asdict(Prediction()).items():
        if getattr(config.prediction, name) != value:
            raise InputError(f"--{name.replace('_', '-')} is one of the options that are tried; leave it out")


class _Search:
    def __init__(self, config: RunConfig, base: Prepared, out: Path, cache: Path, watcher: TuneWatcher) -> None:
        self._start, self._base, self._out, self._cache, self._watcher = config, base, out, cache, watcher
        self._tunable = config.method.tunable()
        self._ties = Ties.of(base.counts)
        self._weights = Balance.of(base.counts).weights(base.test.labels)
        self._pairs = measured_pairs(base.data, base.test.labels)
        self._trials: list[Trial] = []
        # The start, two more rates and a third, and the other values of each option.
        self._most = 4 + sum(len(self._others(self._start, name)) for name in self._tunable)

    def found(self) -> Tuned:
        best = self._trained(self._start)
        rate = self._start.federation.learning_rate
        best = self._best(best, "learning_rate", [_rounded(rate / RATE_STEP), _rounded(rate * RATE_STEP)])
        if best.score == float("-inf"):
            raise InputError(f"training diverged at all learning rates; give one far below --learning-rate {rate:g}")
        chosen = best.config.federation.learning_rate
        if chosen != rate:
            best = self._best(best, "learning_rate", [_rounded(chosen * chosen / rate)])
        for name in self._tunable:
            best = self._best(best, name, self._others(best.config, name))
        mixed = [self._scored(with_option(best.config, "mix", mix)) for mix in MIXES]
        best = _first_best([best, *mixed])
        soft = [self._scored(with_option(best.config, "soft_ties", strength)) for strength in SOFT_TIES]
        self._trials += [*mixed, *soft]
        return Tuned(tuple(self._trials), best, strongest(best, soft))

    def _others(self, config: RunConfig, name: str) -> list[float]:
        return [value for value in self._tunable[name] if value != getattr(config.method, name)]

    def _best(self, best: Trial, name: str, values: Sequence[float]) -> Trial:
        """The best of what was best so far and of other values of an option."""
        return _first_best([best, *(self._trained(with_option(best.config, name, value)) for value in values)])

    def _options(self, config: RunConfig) -> dict[str, float]:
        return {
            "learning_rate": config.federation.learning_rate,
            **{name: getattr(config.method, name) for name in self._tunable},
            **asdict(config.prediction),
        }

    def _label(self, config: RunConfig) -> str:
        """The run in words: its options of training."""
        trained = {name: value for name, value in self._options(config).items() if name not in asdict(Prediction())}
        return ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in trained.items())

    def _folder(self, config: RunConfig) -> Path:
        """Of the run that was trained with the options of ``config``, whose predictions may be others."""
        return self._out / self._label(config).replace(", ", "-").replace(" ", "-")

    def _trained(self, config: RunConfig) -> Trial:
        number = len(self._trials) + 1
        self._watcher.trial_started(number, self._most, self._label(config))
        try:
            results = train(
                config,
                out=self._folder(config),
                resume=True,
                cache=self._cache,
                watcher=self._watcher,
                show_progress=False,
            )
            trial = self._scored(config, seconds=results["time"]["rounds_s"])
        except DivergedError:
            trial = Trial(config, self._options(config))
        self._trials.append(trial)
        self._watcher.trial_done(trial)
        return trial

    def _scored(self, config: RunConfig, *, seconds: float | None = None) -> Trial:
        """The run of ``config`` on the held-out images, as its options predict."""
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
            self._options(config),
            mAP=scores["test"]["mAP"],
            balanced_mAP=weighted_average_precision(found, base.test.labels, self._weights),
            CF1=scores["test"]["CF1"],
            false_coactivation=moved.get("false_coactivation"),
            seconds=seconds,
        )


def with_option(config: RunConfig, name: str, value: float) -> RunConfig:
    """The config with another value of an option, whichever part of it has the option."""
    part = next(part for part in ("federation", "prediction", "method") if hasattr(getattr(config, part), name))
    return replace(config, **{part: replace(getattr(config, part), **{name: value})})


def strongest(plain: Trial, soft: Sequence[Trial]) -> Trial | None:
    """The last of ``soft``, which are in order of strength, that costs at most `SOFT_TIES_COST`; None without one."""
    assert plain.balanced_mAP is not None
    least = plain.balanced_mAP - SOFT_TIES_COST
    return next((trial for trial in reversed(soft) if (trial.balanced_mAP or 0.0) >= least), None)


def _first_best(trials: Sequence[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.score)


def _rounded(rate: float) -> float:
    """To two digits, so that the rate is as it is shown."""
    return float(f"{rate:.2g}")
