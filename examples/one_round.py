"""The whole pipeline, flat: images, frozen features, clients, one round of FedMPT, averaging, scores.

    python examples/one_round.py --backbone openai/clip-vit-base-patch16 --voc VOCdevkit

`fedmpt train` does the same with rounds, checkpoints, resume and every method; this file is for reading.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fedmpt.backbone import load_backbone
from fedmpt.data.datasets.voc import load_voc
from fedmpt.data.features.store import open_features
from fedmpt.data.partition import partition_split
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.aggregate import aggregate
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.seeding import generator
from fedmpt.state import get_state, num_parameters, set_state

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="One federated round, step by step.")
    parser.add_argument("--backbone", required=True, help="hub id, CLIP folder or file.py:function")
    parser.add_argument("--voc", required=True, type=Path, help="VOCdevkit folder")
    parser.add_argument("--t", type=float, default=0.5, help="clients as a share of the classes")
    parser.add_argument("--cache", type=Path, help="where to keep features; a temporary folder unless given")
    options = parser.parse_args()

    # The frozen model, and labelled images that nobody has opened yet.
    backbone = load_backbone(options.backbone)
    data = load_voc(options.voc)
    print(f"{backbone.name}: {len(data.class_names)} classes, {len(data.train)} training images")

    with tempfile.TemporaryDirectory() as folder:
        # The image tower is frozen: it runs once per image, and training reads its features from disk.
        cache = options.cache or Path(folder)
        train = open_features(backbone, data.train, cache=cache)
        test = open_features(backbone, data.test, cache=cache)

        # Images with similar label sets go to the same client: each knows a few classes only.
        partition = partition_split(data.train, setting="heterogeneous", t=options.t)
        clients = [train.subset(rows) for rows in partition.rows]
        print(f"{len(clients)} clients with {[len(client) for client in clients]} images")

        # The method: a config builds a module that holds nothing but trained tensors.
        method = FedMPTConfig().build(backbone, data.class_names, generator=generator(SEED, "init"))
        state = get_state(method)
        before = multilabel_scores(probabilities(method, test), test.labels)
        print(f"{num_parameters(state):,} trained parameters, mAP {before.mAP:.2f} at the start")

        # Every client trains from the server's state and sends back its own; images stay where they are.
        updates = []
        for index, client in enumerate(clients):
            result = local_update(
                method,
                state,
                client,
                personal={},
                client=index,
                round_index=1,
                seed=SEED,
                learning_rate=0.05,
                training=LocalTraining(),
            )
            updates.append(result.update)
            print(f"client {index}: loss {result.update.loss:.3f} on {result.update.num_examples} images")

        # The server averages, and the next round would start from here.
        state, _ = aggregate(method, state, updates)
        set_state(method, state)
        after = multilabel_scores(probabilities(method, test), test.labels)
        print(f"after one round: mAP {after.mAP:.2f}, CF1 {after.CF1:.2f}, OF1 {after.OF1:.2f}")


if __name__ == "__main__":
    main()
