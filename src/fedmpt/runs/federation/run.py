"""A federation between machines from its plan to its results, at the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedmpt.backbone import load_backbone
from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.data import load_data
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.rounds import Best
from fedmpt.files import read_json
from fedmpt.runs.config import DTYPES, RunConfig
from fedmpt.runs.federation.agreement import check_known
from fedmpt.runs.federation.coordinator import Coordinator
from fedmpt.runs.federation.delivery import finish_message
from fedmpt.runs.federation.membership import ENTER, Membership
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.site import relabelled
from fedmpt.runs.federation.sites import WORDS_LIMIT, Link, Sites
from fedmpt.runs.federation.status import SiteStatus, Status
from fedmpt.runs.prediction import COUNTS, load_prediction, summed_counts
from fedmpt.runs.prepare import Ready
from fedmpt.runs.privacy import what_is_private
from fedmpt.runs.run import Watcher, conduct, earlier, fresh_unless_stored, held, is_finished, record_of
from fedmpt.runs.summed import WITHOUT_COUNTS, Summed, candidates_of
from fedmpt.seeding import generator
from fedmpt.state import Weighting
from fedmpt.types import PRESENT, Backbone, InputError

PLAN, RUN = "federation.json", "run"
NEARLY_ALL = 0.9
"""Share of all training images with which one site decides the model alone."""


class Terminated(BaseException):
    """SIGTERM has come."""


STOPPED: Mapping[type[BaseException], str] = {KeyboardInterrupt: "by Ctrl-C", Terminated: "by SIGTERM"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the coordinator's machine decides by itself. ``test`` names test data that lie here, NAME:PATH."""

    backbone: str | None = None
    device: str = "cpu"
    test: str | None = None
    cache: Path
    show_progress: bool = True


def load_plan(folder: Path) -> Plan:
    """The plan of a coordinator's or a site's folder. Raises InputError if there is none."""
    path = folder / PLAN
    if not path.is_file():
        raise InputError(f"{folder} holds no federation ({PLAN} is missing); give the folder that init or request made")
    return Plan.from_json(read_json(path), source=str(path))


def run_federation(
    plan: Plan, link: Link, *, folder: Path, options: Options, watcher: Watcher, note: Callable[[str], None]
) -> dict[str, Any]:
    """Train between machines and write ``folder / "run"``, as `fedmpt.runs.run.train` writes a run; goes on after the
    last complete round. The final model goes to every site that is there. Returns the results.

    Raises:
        InputError: for wrong input, or if too few sites are there for too long.
    """
    config, out = resolved(plan.run), folder / RUN
    earlier(config, out, resume=True)  # Asked before the long work, and again when the folder is ours.
    backbone = load_backbone(options.backbone or config.backbone, device=options.device, dtype=DTYPES[config.dtype])
    with held(out):
        sites = Sites(plan, link, folder, begun_status(folder, plan), note)
        sites.status.write(folder)
        try:
            if is_finished(out) and all(site.has_model for site in sites.status.sites.values()):
                sites.standing("finished")
                return dict(read_json(out / "results.json"))
            results = _run(plan, config, sites, backbone, out=out, options=options, watcher=watcher)
        except BaseException as error:
            with suppress(OSError):  # Where the disk is full, the message is all that is left.
                sites.standing("stopped", note=str(error).strip() or STOPPED.get(type(error), type(error).__name__))
            raise
        sites.standing("finished")
        return results


def _run(
    plan: Plan,
    config: RunConfig,
    sites: Sites,
    backbone: Backbone,
    *,
    out: Path,
    options: Options,
    watcher: Watcher,
) -> dict[str, Any]:
    began = time.perf_counter()
    checkpoint = earlier(config, out, resume=True)
    stored = tuple(checkpoint.record["class_names"]) if checkpoint else None
    members = Membership(sites, backbone, class_names=stored or plan.class_names, counts=stored_counts(out, stored))
    members.rounds_done = checkpoint.progress.rounds_done if checkpoint else 0
    names = members.gather()
    if stored is None and plan.class_names is None:
        sites.say(f"{len(names)} classes, all that the sites' labels name: {', '.join(names)}")
    method = config.method.build(backbone, names, generator=generator(config.seed, "init"))
    members.begin(method, names)
    coordinator = Coordinator(sites, members)
    if not is_finished(out):
        ready = ready_of(members, seconds=time.perf_counter() - began)
        test = None if options.test is None else server_test(options, config, ready)
        sites.status.rounds = config.federation.rounds

        def begin(rounds_done: int) -> list[str]:
            watcher.begin(config, ready, rounds_done=rounds_done)
            notes = what_is_private(config, is_simulated=False)
            notes += [] if members.counts else [WITHOUT_COUNTS]
            images = {site: words["images"] for site, words in members.members.items()}
            return [*notes, *who_outweighs(images, weighting=config.federation.weighting or method.weighting)]

        record = record_of(config, ready)
        coordinator.store = lambda progress: save_checkpoint(out / "checkpoint", progress, record)
        with fresh_unless_stored(out):
            conduct(
                config,
                ready,
                checkpoint,
                rounds=coordinator.rounds,
                scorer=Summed(coordinator, names, candidates_of(members.counts), test=test),
                out=out,
                watcher=watcher,
                begin=begin,
            )
    deliver_all(coordinator, out)
    return dict(read_json(out / "results.json"))


def ready_of(members: Membership, *, seconds: float) -> Ready:
    """What the sites that take part have together, as a run is told it."""
    plan, here, status = members.sites.plan, members.members, members.sites.status.sites
    assert members.method is not None
    assert members.class_names is not None
    return Ready(
        backbone=members.backbone,
        class_names=members.class_names,
        method=members.method,
        counts=members.counts,
        client_names=plan.sites,
        client_images=tuple((status[site].images or 0) for site in plan.sites),
        num_test=sum(status[site].test_images or 0 for site in here),
        num_held_out=sum(words["held_out_images"] for words in here.values()),
        digests={},
        seconds=seconds,
        min_clients=plan.rules.min_sites,
    )


def resolved(config: RunConfig) -> RunConfig:
    """The config as a federation stores it: nothing of it depends on files, and scores are always summed."""
    federation = replace(config.federation, scoring="summed")
    return replace(config, method=config.method.resolved(), federation=federation)


def who_outweighs(images: Mapping[str, int], *, weighting: Weighting) -> list[str]:
    """A note where one site has nearly all ``images`` that the sites train on, and counts by their number."""
    most, total = max(images, key=images.__getitem__), sum(images.values())
    if weighting == "uniform" or len(images) < 2 or images[most] <= NEARLY_ALL * total:
        return []
    return [
        f"site {most} has {images[most]} of {total} training images: the mean of the sites is nearly its model alone. "
        "With --weighting uniform all sites count the same"
    ]


def begun_status(folder: Path, plan: Plan) -> Status:
    """A new status, which remembers of each site what it was before, and of a run that goes on who has its model."""
    before: Mapping[str, SiteStatus] = {}
    with suppress(InputError):  # Damaged, or of another version: it is written anew.
        before = Status.read(folder, plan.sites).sites
    sites = {site: before.get(site, SiteStatus()) for site in plan.sites}
    for site in sites.values():
        site.has_model &= is_finished(folder / RUN)
        if site.state != "never":
            site.state, site.reason = "away", "not seen since the start"
    return Status(sites=sites)


def stored_counts(out: Path, class_names: tuple[str, ...] | None) -> LabelCounts | None:
    """The counts with which a run began; None before it began, and where it needs none."""
    path = out / "checkpoint" / COUNTS
    return summed_counts([path], class_names) if class_names and path.exists() else None


def server_test(options: Options, config: RunConfig, ready: Ready) -> FeatureSet:
    """Features of the test data that lie at the coordinator, labelled with the federation's classes."""
    assert options.test is not None
    data = load_data(options.test, cache=options.cache, progress=options.show_progress)
    check_known(data.class_names, ready.class_names, where=f"--test {options.test}")
    if not (data.test.labels == PRESENT).any():
        raise InputError(f"--test {options.test}: no test image shows any of the classes; check its annotations")
    features = open_features(
        ready.backbone,
        data.test,
        cache=options.cache,
        store_dtype=config.store_dtype,
        device=options.device,
        progress=options.show_progress,
        data=options.test,
        views=ready.method.views,
    )
    return relabelled(features, data.class_names, ready.class_names)


def deliver_all(coordinator: Coordinator, out: Path) -> None:
    """Send the final model to the sites that are there and do not have it."""
    sites, folder = coordinator.sites, out / "checkpoint"
    checkpoint = load_checkpoint(folder)
    record = checkpoint.record
    config = RunConfig.from_json(record["config"], source=str(folder))
    names = tuple(record["class_names"])
    stored, kept = load_prediction(folder, names), checkpoint.progress.kept(config.federation)
    assert stored.calibration is not None
    message = finish_message(
        record=record,
        kept_round=kept.index if isinstance(kept, Best) else kept.rounds_done,
        state=kept.state,
        options=stored.options,
        calibration=stored.calibration,
        counts=coordinator.members.counts,
    )
    lacking = [site for site in sorted(coordinator.members.members) if not sites.status.sites[site].has_model]
    for site, answer, error, _ in sites.asked(dict.fromkeys(lacking, message), timeout=ENTER, limit=WORDS_LIMIT):
        sites.status.sites[site].has_model = answer is not None
        if answer is None:
            sites.say(f"site {site} did not take the final model: {error}", site=site)
    without = [name for name, site in sites.status.sites.items() if not site.has_model]
    if without:
        sites.say(f"without the final model: {', '.join(without)}; they get it when start is given again")
