"""Which site labels differently: false alarms in federations that label alike, and how often a site is found.

    python benchmarks/site_labels.py --data scenes --backbone scenes-clip --out runs/site-labels

A model is trained once, by PromptFL, on clean labels; then many federations are drawn of all images, and their sites'
histograms compared. With --trainings, models are also trained in federations in which one site labels differently.
Prints Markdown tables and writes them to --out/table.json.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmpt.data.partition import Setting, partition_split
from fedmpt.evaluation.scoring import probabilities, set_global
from fedmpt.evaluation.site_labels import ClassAtSite, SiteLabels, site_labels
from fedmpt.evaluation.sums import client_sums
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.simulate import Federation, Simulation
from fedmpt.files import default_cache, write_json
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared, prepare
from fedmpt.state import get_state
from fedmpt.types import PRESENT, InputError

SETTINGS: dict[str, tuple[Setting, float | None]] = {
    "iid": ("iid", None),
    "Dirichlet 0.5": ("dirichlet", 0.5),
    "Dirichlet 0.1": ("dirichlet", 0.1),
    "label clusters": ("heterogeneous", None),
}
CLIENTS = (3, 5, 10)
MIN_OWN = 15
"""Images of a class that the odd site has at least, where any class has so many there."""


def renames(labels: Tensor, random: np.random.Generator) -> tuple[Tensor, int]:
    """Calls class a class b, at random; the changed labels, and a."""
    a = _chosen(labels, random)
    b = int(random.choice([c for c in range(labels.shape[1]) if c != a]))
    changed = labels.clone()
    changed[:, b] = torch.maximum(labels[:, a], labels[:, b])
    changed[:, a] = 0
    return changed, a


def drops(labels: Tensor, random: np.random.Generator) -> tuple[Tensor, int]:
    """Never labels class a."""
    a = _chosen(labels, random)
    changed = labels.clone()
    changed[:, a] = 0
    return changed, a


def mixes_up(labels: Tensor, random: np.random.Generator) -> tuple[Tensor, None]:
    """30% of the images have the labels of another of them."""
    rows = torch.from_numpy(np.flatnonzero(random.random(len(labels)) < 0.3))
    changed = labels.clone()
    changed[rows] = labels[rows[torch.from_numpy(random.permutation(len(rows)))]]
    return changed, None


def _chosen(labels: Tensor, random: np.random.Generator) -> int:
    numbers = (labels == PRESENT).sum(0).numpy()
    enough = np.flatnonzero(numbers >= MIN_OWN)
    return int(random.choice(enough)) if len(enough) else int(numbers.argmax())


ODD: dict[str, Callable[[Tensor, np.random.Generator], tuple[Tensor, int | None]]] = {
    "renames a class": renames,
    "drops a class": drops,
    "30% at random": mixes_up,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--federations", type=int, default=40, help="of each setting and number of clients")
    parser.add_argument("--trainings", type=int, default=0, help="of each kind of odd site")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.8, help="of the images, drawn anew for each federation")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    config = RunConfig(
        data=options.data,
        backbone=options.backbone,
        method=PromptFLConfig(num_context=4, context_init="a photo of a"),
        federation=Federation(rounds=options.rounds, eval_every=options.rounds),
        training=LocalTraining(),
        setting="dirichlet",
        clients=5,
    )
    try:
        prepared = prepare(config, cache=options.cache, show_progress=False)
        start = get_state(prepared.method)
        found, mAP = trained(config, prepared, start, prepared.train.labels)
        rows = {name: measured(prepared, found, name, options) for name in SETTINGS}
        table: dict[str, Any] = {"data": options.data, "mAP": mAP, "federations": options.federations, "rows": rows}
        print(f"mAP {mAP:.1f}\n{markdown(rows)}")
        if options.trainings:
            table["trained"] = odd_trainings(config, prepared, start, options)
            print("\n".join(f"{name}: {row}" for name, row in table["trained"].items()))
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "table.json", table)


def trained(
    config: RunConfig, prepared: Prepared, start: dict[str, Tensor], labels: Tensor
) -> tuple[Tensor, float | None]:
    """Probabilities of all images, training ones first, of a model trained with these labels, and its mAP."""
    method = prepared.method
    shared, initial = method.split(start)
    set_global(method, shared, initial=initial, source="start")
    clients = [
        replace(client, labels=labels[rows])
        for client, rows in zip(prepared.clients, prepared.partition.rows, strict=True)
    ]
    simulation = Simulation(
        method=method,
        clients=clients,
        test=prepared.test,
        federation=config.federation,
        training=config.training,
        seed=config.seed,
    )
    *_, last = simulation.rounds()
    set_global(method, last.progress.state, initial=initial, source="server")
    found = torch.cat([probabilities(method, part) for part in (prepared.train, prepared.test)])
    return found, None if last.scores is None else last.scores.mAP


def measured(prepared: Prepared, found: Tensor, setting: str, options: argparse.Namespace) -> dict[str, Any]:
    """Shares of federations, by number of clients: with a false alarm, and with the odd site named or another."""
    rows: dict[str, Any] = {}
    for num_clients in CLIENTS:
        counts = dict.fromkeys(["false alarm", *ODD, "another named", "odd federations"], 0)
        for seed in range(options.federations):
            random = np.random.default_rng([seed, num_clients])
            drawn = torch.from_numpy(random.permutation(len(found))[: round(options.share * len(found))])
            labels = torch.cat([prepared.train.labels, prepared.test.labels])[drawn]
            clients = divided(labels, prepared, setting, num_clients, seed)
            counts["false alarm"] += bool(compared(found[drawn], labels, clients, prepared).alarms)
            odd = int(random.integers(num_clients))
            for kind, changed in ODD.items():
                other, a = labels.clone(), clients == odd
                other[a], lost = changed(labels[a], random)
                alarms = named(compared(found[drawn], other, clients, prepared), prepared, odd, lost)
                counts[kind] += alarms[0]
                counts["another named"] += alarms[1]
                counts["odd federations"] += 1
        rows[str(num_clients)] = counts
        print(setting, num_clients, counts, file=sys.stderr, flush=True)
    return rows


def divided(labels: Tensor, prepared: Prepared, setting: str, num_clients: int, seed: int) -> Tensor:
    """Whose each image is."""
    kind, alpha = SETTINGS[setting]
    split = replace(
        prepared.data.train, files=prepared.data.train.files[:1] * len(labels), labels=labels, columns={}, pool=()
    )
    # Rounded down and up again: t times the number of classes is the number of clients.
    t = math.floor(1e6 * num_clients / labels.shape[1]) / 1e6
    own = {"t": t} if kind == "heterogeneous" else {"num_clients": num_clients, "alpha": alpha}
    clients = torch.empty(len(labels), dtype=torch.int64)
    for client, rows in enumerate(partition_split(split, setting=kind, seed=seed, **own).rows):
        clients[rows] = client
    return clients


def compared(found: Tensor, labels: Tensor, clients: Tensor, prepared: Prepared) -> SiteLabels:
    sums = client_sums(found, labels, clients, num_clients=int(clients.max()) + 1, thresholds=None, pairs=())
    return site_labels({str(s): part.histograms for s, part in enumerate(sums)}, prepared.data.class_names)


def named(found: SiteLabels, prepared: Prepared, odd: int, lost: int | None) -> tuple[bool, bool]:
    """Whether the odd site is named, for the class it lost where it lost one, and whether another site is."""
    sites = {row.site for row in found.alarms}
    name = None if lost is None else prepared.data.class_names[lost]
    hits = [row for row in found.alarms if (isinstance(row, ClassAtSite) and row.class_name == name) or name is None]
    return any(row.site == str(odd) for row in hits), bool(sites - {str(odd)})


def odd_trainings(
    config: RunConfig, prepared: Prepared, start: dict[str, Tensor], options: argparse.Namespace
) -> dict[str, Any]:
    """Of models that were trained with the odd site: how often it is named by its training images, and another."""
    labels, rows = prepared.train.labels, prepared.partition.rows
    clients = torch.empty(len(labels), dtype=torch.int64)
    for client, own in enumerate(rows):
        clients[own] = client
    results = {kind: {"named": 0, "another": 0, "of": 0} for kind in ODD}
    for seed, (kind, changed) in cases(options.trainings):
        random = np.random.default_rng(seed)
        odd, other = int(random.integers(len(rows))), labels.clone()
        other[rows[odd]], lost = changed(labels[rows[odd]], random)
        found, _ = trained(config, prepared, start, other)
        hit, blamed = named(compared(found[: len(labels)], other, clients, prepared), prepared, odd, lost)
        results[kind] = {
            "named": results[kind]["named"] + hit,
            "another": results[kind]["another"] + blamed,
            "of": results[kind]["of"] + 1,
        }
    return results


def cases(num: int) -> Iterator[tuple[int, tuple[str, Callable[..., tuple[Tensor, int | None]]]]]:
    return itertools.product(range(num), ODD.items())


def markdown(rows: dict[str, Any]) -> str:
    """Percent of federations, a line for each setting and number of clients."""
    lines = [
        f"| sites | number | false alarm | {' | '.join(ODD)} | another named |",
        f"|---|---:|{'---:|' * (len(ODD) + 2)}",
    ]
    for setting, by_number in rows.items():
        for number, counts in by_number.items():
            each = counts["odd federations"] / len(ODD)
            cells = [f"{100 * counts[name] / each:.0f}%" for name in ("false alarm", *ODD)]
            blamed = f"{100 * counts['another named'] / counts['odd federations']:.0f}%"
            lines.append(f"| {setting} | {number} | {' | '.join(cells)} | {blamed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
