"""``fedmpt federation init``: options in, the coordinator's folder and invitations out.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from fedmpt.cli.federation import needs_engine
from fedmpt.cli.train import first_look, from_preset

if TYPE_CHECKING:
    from fedmpt.cli.federation.init_options import InitOptions
    from fedmpt.runs.federation.plan import Plan


def init(arguments: list[str]) -> None:
    options = _options(arguments)
    needs_engine()
    from fedmpt.federated.flare.founding import set_up

    plan = _plan(options)
    root = set_up(
        options.folder,
        plan.to_json(),
        address=(plan.host, plan.port),
        days=options.days,
        root_days=options.root_days,
        trial=options.trial,
    )
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    told = _after_trial(options, plan) if options.trial else _what_next(options, plan)
    listed = ", ".join(plan.sites)
    console.print(
        f"federation {plan.name} at {plan.address}, method {plan.run.method.name}, sites {listed}\n"
        f"root certificate: {root}\n\n{told}",
        markup=False,
    )


def _options(arguments: list[str]) -> InitOptions:
    """Parsed in two steps, since the method decides which options there are."""
    from fedmpt.cli.federation.init_options import InitOptions, SiteRun
    from fedmpt.types import InputError

    chosen, _ = first_look(arguments)
    if chosen.data is not None:
        raise InputError("--data is no option of the coordinator: each site names its own, with fedmpt federation join")
    start = from_preset(chosen, data=SiteRun.data)
    default = InitOptions(
        folder=Path(),
        sites="",
        address="",
        method=start.method.name,
        preset=chosen.preset or "default",
        run=SiteRun.of(start),
    )
    config = (tyro.conf.OmitArgPrefixes,)
    options = tyro.cli(InitOptions, args=arguments, default=default, prog="fedmpt federation init", config=config)
    if options.folder == Path():
        raise InputError("give a new folder, for example: fedmpt federation init fed --sites ... --address ...")
    return options


def _plan(options: InitOptions) -> Plan:
    from fedmpt.conditions.document import read_class_list
    from fedmpt.runs.federation.plan import Plan
    from fedmpt.types import InputError, check_options

    check_options(options, "(0, inf)", "days", "root_days")
    if options.days > options.root_days:
        raise InputError(f"--days {options.days} is more than --root-days {options.root_days}, and nothing outlasts it")
    run = options.run.config()
    plan = Plan(
        name=options.name,
        sites=tuple(sorted(word.strip() for word in options.sites.split(",") if word.strip())),
        address=options.address,
        # By name: the file that has them is not at the sites.
        run=replace(run, method=run.method.resolved()),
        class_names=None if options.classes is None else read_class_list(options.classes),
        rules=options.rules,
    )
    plan.check()
    return plan


def _what_next(options: InitOptions, plan: Plan) -> str:
    folder, first = options.folder, plan.sites[0]
    return f"""What comes next:
1. Send each site its file of {folder / "invitations"}. It is no secret, but it must arrive unchanged: read the root
   certificate's fingerprint above to each site, by telephone.
2. Each site runs:       fedmpt federation request {first}.json
   and sends you the file {first}.request.zip.
3. You run for each:     fedmpt federation approve {first}.request.zip --coordinator {folder / "coordinator"}
   and send the file {first}.signed.zip back.
4. Let the sites reach TCP port {plan.port} of {plan.host}. That is the only port.
5. Each site puts the answer into its folder {first}, and runs:
                         fedmpt federation join {first} --data folder:PHOTOS
6. You run:              fedmpt federation start {folder / "coordinator"}

Whoever has {folder / "coordinator" / "authority"} can admit anybody. Keep it to yourself, and keep a copy."""


def _after_trial(options: InitOptions, plan: Plan) -> str:
    joins = "\n".join(
        f"  fedmpt federation join {options.folder / 'sites' / site} --data folder:PHOTOS" for site in plan.sites
    )
    return f"""All keys are in {options.folder}, so this is for a trial. Run, each in a terminal of its own:
  fedmpt federation start {options.folder / "coordinator"}
{joins}"""
