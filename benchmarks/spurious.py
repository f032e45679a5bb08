"""FedMPT's claim on `scenes`: train where labels are tied together, test where they are not. Every row, every seed.

    python benchmarks/spurious.py --out runs/spurious
    python benchmarks/spurious.py --out runs/sweep --world 1 --seeds 0 --rows rates

Runs that are complete in --out are not repeated. Prints a Markdown table and writes all scores to --out/table.json.
Options were chosen on world 1 (``--world``, another seed of the pictures); the table is of world 0.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from comparison import with_method
from rich.console import Console
from run import markdown, score_at, slug

from fedmpt.cli.progress import TerminalWatcher
from fedmpt.evaluation.final import Prediction
from fedmpt.federated.client import LocalTraining
from fedmpt.files import default_cache, write_json
from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.report.demo.trials import Trial, run_trial
from fedmpt.runs.config import RunConfig
from fedmpt.types import InputError

COLUMNS = {
    "mAP natural": ("natural", "mAP"),
    "mAP reversed": ("reversed", "mAP"),
    "CF1 reversed": ("reversed", "CF1"),
    "exclusive AP": ("reversed", "shift", "exclusive"),
    "false co-activation": ("reversed", "shift", "false_coactivation"),
    "false co-activation, natural": ("natural", "shift", "false_coactivation"),
}


def rows(trial: Trial) -> dict[str, dict[str, RunConfig]]:
    """Tables by name, each a config a row."""
    zero_shot, promptfl, fedmpt = (trial.config(name) for name in ("zero-shot", "promptfl", "fedmpt"))
    pooled, plain = with_method(zero_shot, head="pooled"), replace(fedmpt, training=LocalTraining())
    # The parts that the paper has, each by itself: prompts, one reading, no balance.
    unmixed = replace(plain, prediction=Prediction())
    paper_parts = with_method(unmixed, text="prompts", csra=False, model_rates=False, adapter_rate=10.0)
    methods = {
        "zero-shot, patches": zero_shot,
        "zero-shot, pooled": pooled,
        "zero-shot, CSRA": with_method(zero_shot, head="csra"),
        "PromptFL": promptfl,
        "PromptFL, soft ties 0.5": replace(promptfl, prediction=Prediction(soft_ties=0.5)),
        "class-vectors": trial.config("class-vectors"),
        "linear-probe": trial.config("linear-probe"),
        "FedMPT, paper's values": replace(unmixed, method=FedMPTConfig.paper()),
        "FedMPT, the default before": paper_parts,
        "FedMPT": fedmpt,
        "FedMPT, soft ties 0.5": replace(fedmpt, prediction=replace(fedmpt.prediction, soft_ties=0.5)),
        "FedMPT, mix 1": replace(fedmpt, prediction=Prediction()),
        "FedMPT, not balanced": plain,
        "FedMPT, one reading": with_method(fedmpt, csra=False),
        "FedMPT, prompts": with_method(fedmpt, text="prompts"),
        "FedMPT, options for photos": with_method(fedmpt, entropy=0.3, patch_temperature=4.0),
    }
    parts = {
        "condition prompts": with_method(paper_parts, adapters=False, transport="mean", gate=False),
        "adapters": with_method(paper_parts, condition_prompts=False, transport="mean", gate=False),
        "both": with_method(paper_parts, transport="mean", gate=False),
        "both + transport": with_method(paper_parts, gate=False),
        "both + gate": with_method(paper_parts, transport="mean"),
        "all, without adapters": with_method(paper_parts, adapters=False),
        "all, without condition prompts": with_method(paper_parts, condition_prompts=False),
        "all, rows only": with_method(paper_parts, transport="rows"),
        "all, entropy 1": with_method(paper_parts, entropy=1.0),
        "all, entropy 5": with_method(paper_parts, entropy=5.0),
    }
    return {"methods": methods, "parts": parts, "rates": _rates(promptfl, fedmpt)}


def _rates(promptfl: RunConfig, fedmpt: RunConfig) -> dict[str, RunConfig]:
    """The sweep that chose the settings, on another world."""
    found = {f"PromptFL, rate {rate}": _at_rate(promptfl, rate) for rate in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)}
    random_start = with_method(promptfl, num_context=16, context_init="")
    found |= {f"PromptFL, 16 random, rate {rate}": _at_rate(random_start, rate) for rate in (0.05, 0.3, 1.0, 3.0)}
    found["PromptFL, 4 random"] = with_method(promptfl, context_init="")
    found |= {f"FedMPT, rate {rate}": _at_rate(fedmpt, rate) for rate in (0.02, 0.1)}
    for option, values in {
        "text": ("prompts", "both"),
        "csra": (False,),
        "vector_rate": (3.0, 30.0),
        "adapter_rate": (15.0, 150.0),
        "entropy": (0.1, 0.3, 0.5, 1.0),
        "patch_temperature": (1.0, 4.0),
        "gate": (False,),
    }.items():
        found |= {f"FedMPT, {option} {value}": with_method(fedmpt, **{option: value}) for value in values}
    found["FedMPT, not balanced"] = replace(fedmpt, training=LocalTraining())
    # What is chosen now stands in the table of methods.
    return {name: config for name, config in found.items() if config not in (promptfl, fedmpt)}


def _at_rate(config: RunConfig, rate: float) -> RunConfig:
    return replace(config, federation=replace(config.federation, learning_rate=rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=("methods", "parts", "rates"), default=["methods", "parts"])
    parser.add_argument("--world", type=int, default=0, help="seed of the pictures")
    parser.add_argument("--spurious", type=float, default=0.9)
    parser.add_argument("--num-test", type=int, default=4000, help="images of each test; few pairs fail in few images")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    trial = Trial(options.rounds, 0, options.spurious, num_train=2000, num_test=options.num_test, world=options.world)
    tables = rows(trial)
    try:
        table = {
            name: measure(name, config, trial, options)
            for kind in options.rows
            for name, config in tables[kind].items()
        }
    except InputError as error:
        sys.exit(f"{parser.prog}: {error}")
    write_json(options.out / "table.json", {"world": options.world, "seeds": options.seeds, "rows": table})
    print(markdown(table))


def measure(name: str, config: RunConfig, trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of all seeds, by column."""
    folder = options.out / slug(name)
    outcomes = []
    with TerminalWatcher(Console(stderr=True, quiet=True)) as watcher:
        for seed in options.seeds:
            run = replace(config, seed=seed)
            out = folder / f"seed{seed}"
            outcomes.append(run_trial(trial, run, out=out, cache=options.cache, watcher=watcher, every_round=False))
    scores = {column: [score_at(vars(outcome), path) for outcome in outcomes] for column, path in COLUMNS.items()}
    line = "  ".join(f"{column} {statistics.mean(values):.2f}" for column, values in scores.items())
    print(f"{name}: {line}", file=sys.stderr, flush=True)
    return {"scores": scores, "params": outcomes[0].results["params"]}


if __name__ == "__main__":
    main()
