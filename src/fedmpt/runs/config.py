"""What decides a run's numbers, as frozen dataclasses from which the command line is derived."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import torch
import tyro

from fedmpt.data.partial_labels import PartialLabels
from fedmpt.data.partition import Setting
from fedmpt.evaluation.final import Prediction
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.privacy import Privacy
from fedmpt.federated.rounds import Federation
from fedmpt.methods import METHODS, MethodConfig
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.types import InputError, check_options

SETTING_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "heterogeneous": ("t",),
    "iid": ("clients",),
    "dirichlet": ("clients", "alpha"),
    "natural": ("by",),
}
DEFAULT_PARTIAL_FRACTION = 0.5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class RunConfig:
    """A training run. Stored as config.json; the same config gives the same numbers."""

    data: Annotated[str, tyro.conf.arg(help_behavior_hint="(required)")]
    """Data set, NAME:FOLDER: folder (photos of your own), clients (a folder for each site), voc, coco, nus-wide,
    multi-scene or mlrsnet; or scenes, which the package draws. Options follow, as in voc:FOLDER,difficult=absent. With
    any of them ties=0.95 moves training images that show a class without its usual company to the test set."""
    backbone: str = "openai/clip-vit-base-patch16"
    """Frozen model: a hub id, a folder in Hugging Face CLIP layout, file.py:function, package.module:function, or
    scenes-clip, which comes with the package and knows only scenes."""
    setting: Setting | None = None
    """How images are divided among clients: heterogeneous clusters label vectors (see --t), iid divides at random,
    dirichlet skews labels (see --alpha), natural goes by a column of the data (see --by). Unless given: natural where
    the data come from several sites (clients:FOLDER), else heterogeneous."""
    t: float | None = None
    """Clients as a share of the classes, in (0, 1]; only for heterogeneous, where it is 0.5 unless given."""
    clients: int | None = None
    """Number of clients; only for iid and dirichlet."""
    alpha: float | None = None
    """How evenly labels are spread over clients: 0.1 is very uneven, 100 nearly iid; only for dirichlet, where it is
    0.5 unless given."""
    by: str | None = None
    """Column that says whose each image is, say hospital; only for natural, where it is the site unless given."""
    partition: str | None = None
    """File that `fedmpt data partition` wrote; says who has which images, so no setting is given."""
    partial_labels: PartialLabels | None = None
    """Take labels from the training images: masked-negative makes present ones absent (as published), masked-unknown
    makes any of them unknown (DualCoOp), missing-classes lets each client know those of some classes only."""
    partial_fraction: float = DEFAULT_PARTIAL_FRACTION
    """Share of the labels that masked-negative and masked-unknown take, in [0, 1)."""
    classes_per_client: int | None = None
    """Classes whose labels each client knows; only for --partial-labels missing-classes."""
    validation: float = 0.0
    """Hold out this share of the training images and score on them: for choosing options, which must never see the
    test set. The same images whatever the seed."""
    seed: int = 0
    """Seed of initial values, order of images, cohorts, clients of iid and dirichlet, and labels that are hidden."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format of the frozen towers; what is trained stays in fp32."""
    store_dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Number format of the stored patch features."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    federation: Federation = field(default_factory=Federation)
    training: LocalTraining = field(default_factory=LocalTraining)
    aggregation: Aggregation = field(default_factory=Aggregation)
    privacy: Privacy = field(default_factory=Privacy)
    prediction: Prediction = field(default_factory=Prediction)
    method: MethodConfig = field(default_factory=FedMPTConfig)

    @property
    def needs_counts(self) -> bool:
        """Whether clients tell their counts of labels."""
        return self.training.balance or self.prediction.soft_ties > 0

    def check(self) -> None:
        """Raises InputError for values that cannot be: one message, naming the flag."""
        federation, training = self.federation, self.training
        check_options(self, "(0, 1]", "t")
        check_options(self, "(0, inf)", "alpha")
        check_options(self, "[0, 1)", "validation", "partial_fraction")
        check_options(federation, "(0, inf)", "rounds", "eval_every", "learning_rate")
        check_options(federation, "(0, 1]", "participation")
        check_options(federation, "[0, 1)", "held_out")
        check_options(training, "(0, inf)", "local_epochs", "batch_size")
        check_options(training, "[0, 1)", "momentum")
        check_options(training, "[0, inf)", "weight_decay", "proximal", "pseudo_labels_after", "global_consistency")
        if federation.keep == "best" and not federation.held_out_share:
            raise InputError("--keep best chooses by held-out images; give --held-out above 0, or leave it out for 0.1")
        self._check_setting()
        self._check_partial_labels()
        self.prediction.check()
        self.aggregation.check()
        self.aggregation.check_weighting(federation.weighting)
        self.privacy.check(self.aggregation)
        if self.privacy.is_on:
            self._check_exact_releases()

    def check_untrained(self) -> None:
        """Raises InputError for options of training that would have no effect, since the method trains nothing."""
        chosen = {
            "aggregator": self.aggregation.aggregator != "mean",
            "server": self.aggregation.server != "none",
            "dp-noise": self.privacy.is_on,
            "clip-norm": self.aggregation.clip_norm is not None,
            "proximal": self.training.proximal != 0,
            "pseudo-labels": self.training.pseudo_labels != 0,
            "global-consistency": self.training.global_consistency != 0,
            "balance": self.training.balance,
            "weighting": self.federation.weighting is not None,
            "keep": self.federation.keep != "last",
            "held-out": self.federation.held_out is not None,
            "mix": self.prediction.mix != 1,
        }
        if idle := [flag for flag, is_chosen in chosen.items() if is_chosen]:
            raise InputError(
                f"--{idle[0]} has no effect: {self.method.name} trains nothing; leave it out or take another --method"
            )

    def _check_exact_releases(self) -> None:
        """Raises InputError for options by which clients' labels or images change the model without noise."""
        exact = {
            "--balance sums exact counts of the clients' labels": (self.training.balance, "--no-balance"),
            "--soft-ties takes exact counts of the clients' labels": (self.prediction.soft_ties != 0, "--soft-ties 0"),
            "--keep best chooses by exact scores of the clients' images": (
                self.federation.keep == "best",
                "--keep last",
            ),
        }
        for fault, (is_chosen, remedy) in exact.items():
            if is_chosen:
                raise InputError(f"{fault}, which --dp-noise does not cover; give {remedy}")

    def _check_setting(self) -> None:
        """Whether each option belongs to the setting."""
        given = [name for name in ("t", "clients", "alpha", "by") if getattr(self, name) is not None]
        if self.partition is not None and (self.setting is not None or given):
            extra = "setting" if self.setting is not None else given[0]
            raise InputError(f"--partition says already who has which images; leave --{extra} out")
        setting = self.setting or ("natural" if "by" in given else "heterogeneous")
        for name in given:
            if name not in SETTING_OPTIONS[setting]:
                owners = " or ".join(owner for owner, names in SETTING_OPTIONS.items() if name in names)
                own = " and ".join(f"--{word}" for word in SETTING_OPTIONS[setting])
                raise InputError(f"--{name} goes with --setting {owners}; {setting} takes {own}")
        if setting in ("iid", "dirichlet") and (self.clients is None or self.clients < 1):
            found = "none is given" if self.clients is None else f"got {self.clients}"
            raise InputError(f"--setting {setting} needs --clients, at least 1; {found}")
        if self.validation and self.partition is not None:
            raise InputError("--partition is of all training images; leave --validation out, or give a setting")

    def _check_partial_labels(self) -> None:
        """What becomes of unknown labels, and which ones are made unknown."""
        training = self.training
        if training.pseudo_labels and not 0.5 < training.pseudo_labels < 1:
            raise InputError(f"--pseudo-labels must be in (0.5, 1), or 0 for none; got {training.pseudo_labels}")
        if training.pseudo_labels_after != LocalTraining.pseudo_labels_after and not training.pseudo_labels:
            raise InputError("--pseudo-labels-after has no effect without --pseudo-labels; give one such as 0.9")
        by_class, each = self.partial_labels == "missing-classes", self.classes_per_client
        if (self.partial_labels is None or by_class) and self.partial_fraction != DEFAULT_PARTIAL_FRACTION:
            raise InputError(
                f"--partial-fraction {self.partial_fraction} needs --partial-labels, which says what becomes of those "
                "labels: masked-negative or masked-unknown"
            )
        if by_class and each is None:
            raise InputError(
                "--partial-labels missing-classes needs --classes-per-client, how many of the classes each client "
                "annotates"
            )
        if each is not None and each < 1:
            raise InputError(f"--classes-per-client must be at least 1, got {each}")
        if each is not None and not by_class:
            raise InputError(f"--classes-per-client {each} goes with --partial-labels missing-classes; give both")

    def to_json(self) -> dict[str, Any]:
        words = dataclasses.asdict(self)
        words["method"] = {"name": self.method.name, **words["method"]}
        return words

    @classmethod
    def from_json(cls, words: Mapping[str, Any], *, source: str) -> RunConfig:
        """The inverse of `to_json`. Raises InputError naming ``source`` and the field that is unknown or missing."""
        try:
            rest = dict(words)
            method = dict(rest.pop("method"))
            method_class = METHODS[method.pop("name")]
            # Runs of before there was a choice of aggregation have none stored; they took the mean.
            parts = {name: _construct(part, rest.get(name, {}), source) for name, part in NESTED.items()}
            parts["method"] = _construct(method_class, method_class.of_stored(method), source)
            return _construct(cls, rest | parts, source)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{source}: not the config of a run ({error!r})") from error


def differences(old: RunConfig, new: RunConfig) -> str:
    """Where two configs differ, in words; empty where they don't."""
    before, after = flat(old.to_json()), flat(new.to_json())
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return "; ".join(f"{key} was {before.get(key)!r}, now {after.get(key)!r}" for key in keys)


def flat(words: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested words by dotted names, such as ``"federation.rounds"``."""
    found: dict[str, Any] = {}
    for key, value in words.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


# Published settings; 100 rounds for COCO. Clients count the same in the mean.
PAPER_FEDERATION = Federation(rounds=50, learning_rate=0.001)

PRESETS = ("default", "paper")
NESTED = {
    "federation": Federation,
    "training": LocalTraining,
    "aggregation": Aggregation,
    "privacy": Privacy,
    "prediction": Prediction,
}


def preset(name: str, method: str, data: str) -> RunConfig:
    """Where flags start from: ``default`` is what measured best, ``paper`` what the paper and its code say.

    Raises:
        InputError: for a method or preset that does not exist.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    config = METHODS[method]
    _check_option_names(config)
    if name == "paper":
        federation = replace(PAPER_FEDERATION, learning_rate=config.paper_learning_rate)
        return RunConfig(data=data, method=config.paper(), federation=federation)
    federation, training = Federation(learning_rate=config.learning_rate), LocalTraining(balance=config.balanced)
    prediction = Prediction(mix=config.mix)
    return RunConfig(data=data, method=config(), federation=federation, training=training, prediction=prediction)


def _check_option_names(method: type[MethodConfig]) -> None:
    """Raises InputError where an option of a method, which may be a user's own, has a name that the run has taken."""
    taken = {item.name for part in (RunConfig, *NESTED.values()) for item in dataclasses.fields(part)}
    if clash := sorted(taken & {item.name for item in dataclasses.fields(method)}):
        flag = clash[0].replace("_", "-")
        raise InputError(f"method {method.name!r}: --{flag} is an option of every run; give the method's another name")


def _construct(cls: type, words: Mapping[str, Any], source: str) -> Any:
    names = {item.name for item in dataclasses.fields(cls)}
    if unknown := sorted(words.keys() - names):
        close = get_close_matches(unknown[0], names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; if a newer version wrote it, update fedmpt"
        raise InputError(f"{source}: unknown field {unknown[0]!r} for {cls.__name__}{hint}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in words.items()}
    for name, hint in get_type_hints(cls).items():
        if name in values and name in names and not _fits(values[name], hint):
            raise InputError(f"{source}: {name} cannot be {values[name]!r}")
    return cls(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON can be what a field's annotation says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if arguments:  # A union.
        return any(_fits(value, argument) for argument in arguments)
    return isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
