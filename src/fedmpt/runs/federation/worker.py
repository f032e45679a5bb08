"""The process at a site that holds model, features and personal tensors: ``python -m fedmpt.runs.federation.worker``.

It makes everything ready, then answers on a socket. The coordinator's engine runs in other processes, and comes and
goes; what is loaded here stays.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from fedmpt.backbone import load_backbone
from fedmpt.backbone.load import parse_spec
from fedmpt.data import load_data
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.flare.policy import read_policy
from fedmpt.runs.config import DTYPES
from fedmpt.runs.federation.agreement import check_known
from fedmpt.runs.federation.joining import WorkerOptions, said
from fedmpt.runs.federation.nodes import Node
from fedmpt.runs.federation.places import places_of, without_folders
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.site import Holdings, Site
from fedmpt.seeding import generator
from fedmpt.types import PRESENT, Backbone, ImageData, InputError

SOCKET = "FEDMPT_WORKER_SOCKET"
Handle = Callable[[Message], Message]


def main() -> None:
    # Imported here: what makes a site ready needs no engine.
    from fedmpt.federated.flare.sockets import serve

    options = WorkerOptions(**json.loads(sys.argv[1]))
    try:
        handle = ready(options, note=said(options.quiet))
    except (InputError, OSError) as error:
        print(f"fedmpt federation join: {error}", file=sys.stderr)
        sys.exit(2)
    most = read_policy(Path(options.kit)).max_bytes
    serve(Path(os.environ[SOCKET]), answering(handle, most=most, places=places_of(options)))


def ready(options: WorkerOptions, *, note: Callable[[str], None]) -> Handle:
    """Load and check all that a site needs, and compute its features; what answers messages then.

    Raises:
        InputError: for anything wrong with what the site's engineer gave.
    """
    from fedmpt.federated.flare.kits import INVITATION, read_invitation

    invitation = read_invitation(Path(options.kit) / INVITATION)
    plan = Plan.from_json(invitation.plan, source=options.kit)
    if options.backbone is None and parse_spec(plan.run.backbone).kind == "plugin":
        raise InputError(
            f"the federation's model is code on this machine, {plan.run.backbone}, and no coordinator may choose what "
            f"runs here; if you know that code, say so: --backbone {plan.run.backbone}"
        )
    if plan.is_simulation:
        run = replace(plan.run, data=options.data or plan.run.data, backbone=options.backbone or plan.run.backbone)
        node = replace(plan, run=replace(run, device=options.device))
        return Node(node, cache=Path(options.cache), note=note, show_progress=not options.quiet).handle
    return prepare_site(options, invitation.site, plan, note=note).handle


def prepare_site(options: WorkerOptions, name: str, plan: Plan, *, note: Callable[[str], None]) -> Site:
    """The site ``name`` with its own data."""
    if options.data is None:
        raise InputError("give the site's images with --data, for example --data folder:photos")
    kit, config = Path(options.kit), plan.run
    policy = read_policy(kit)
    if policy.methods is not None and config.method.name not in policy.methods:
        raise InputError(
            f"{kit / 'policy.json'} allows {', '.join(policy.methods)}, and the federation trains "
            f"{config.method.name}; allow it there, or take no part"
        )
    data = load_data(options.data, cache=Path(options.cache), progress=not options.quiet, is_site=True)
    if len(data.train) < policy.min_images:
        raise InputError(
            f"{kit / 'policy.json'} asks for at least {policy.min_images} training images (min_images), and "
            f"{options.data} has {len(data.train)}"
        )
    if not (data.train.labels == PRESENT).any():
        raise InputError(f"{options.data}: no training image shows any of the classes; check its annotations")
    if plan.class_names is not None:
        check_known(data.class_names, plan.class_names, where=options.data)
    note(f"{len(data.train)} training and {len(data.test)} held-out images, {len(data.class_names)} classes:")
    note(f"  {', '.join(data.class_names)}")
    for line in data.notes:
        note(f"note: {line}")
    backbone = load_backbone(options.backbone or config.backbone, device=options.device, dtype=DTYPES[config.dtype])
    holdings = holdings_of(options, name, plan, data, backbone)
    return Site(replace(holdings, send_counts=policy.send_counts), note=note)


def holdings_of(options: WorkerOptions, name: str, plan: Plan, data: ImageData, backbone: Backbone) -> Holdings:
    """The site's images with their features, computed where they are not stored."""
    config = plan.run
    # What a method reads of images does not depend on the names of classes; a second one, if there is one alone, does
    # not matter.
    names = plan.class_names or (*data.class_names, *(("thing",) if len(data.class_names) == 1 else ()))
    method = config.method.build(backbone, names, generator=generator(config.seed, "init"))

    def opened(split: str) -> FeatureSet:
        return open_features(
            backbone,
            getattr(data, split),
            cache=Path(options.cache),
            store_dtype=config.store_dtype,
            device=options.device,
            skip_corrupt=options.skip_corrupt,
            progress=not options.quiet,
            data=options.data or "",
            views={**method.views, **(method.training_views if split == "train" else {})},
        )

    train, test = opened("train"), opened("test") if len(data.test) else None
    return Holdings(
        plan, name, backbone, data.class_names, train, test, Path(options.kit), options.backbone or config.backbone
    )


def answering(handle: Handle, *, most: float = math.inf, places: Collection[str] = ()) -> Callable[[bytes], bytes]:
    """Bytes in, bytes out, at most ``most``: whatever goes wrong becomes an answer in words, without the folders
    ``places``, and the worker goes on."""

    def answer(content: bytes) -> bytes:
        try:
            found = pack(handle(unpack(content, source="the coordinator")))
            if len(found) > most:
                raise InputError(f"its answer has {len(found)} bytes, and its policy.json allows {most} (max_bytes)")
            return found
        except InputError as error:
            return pack(Message("error", {"error": without_folders(str(error), places)}))
        except Exception as error:
            # A fault of ours: all of it for the site's engineer, one line for the coordinator.
            traceback.print_exc()
            text = without_folders(f"a fault in fedmpt: {type(error).__name__}: {error}", places)
            return pack(Message("error", {"error": text[:500]}))

    return answer


if __name__ == "__main__":
    main()
