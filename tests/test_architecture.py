"""The architecture: imports go one way, and importing the package costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "fedmpt"

# A part may import parts of a lower rank, and itself. Parts of one rank do not know each other.
RANKS = {
    "types": 0,
    "seeding": 0.5,
    "state": 0.5,
    "files": 0.5,
    "plotting": 1,
    "model_folder": 0.7,
    "cache": 0.5,
    "backbone": 1,
    "prompts": 2,
    "llm": 2,
    "conditions": 3,
    "transport": 4,
    "losses": 5,
    "heads": 5,
    "metrics": 5,
    "context_shift": 5,
    "data": 6,
    "methods": 7,
    "federated": 8,
    "config": 10,
    "records": 11,
    "dealing": 11,
    "scoring": 11,
    "train_words": 11,
    "predict": 12,
    "explain": 8,
    "run": 12,
    "progress": 13,
    "partition_plot": 13,
    "condition_scores": 13,
    "data_tables": 13.5,
    "commands": 14,
    "data_command": 14,
    "features_command": 14,
    "methods_command": 14,
    "conditions_command": 14,
    "demo": 14,
    "cli": 15,
}
ROOT = ""
"""The package's own `__init__`, which holds the version and which everything may import."""


def part_of(module: str) -> str:
    """``fedmpt.data.voc`` belongs to ``data``; ``fedmpt`` and ``fedmpt.__main__`` have parts of their own."""
    return [*module.split("."), ROOT][1]


def imported_modules(tree: ast.AST, module: str, *, is_package: bool) -> set[str]:
    """All modules of the package that are imported anywhere in a file, within functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(node, module, is_package=is_package)
            # `from fedmpt import heads` imports a part, `from fedmpt import __version__` a name of the root.
            found.update(f"{base}.{alias.name}" if base == "fedmpt" else base for alias in node.names)
    return {"fedmpt" if name == "fedmpt.__version__" else name for name in found if name.split(".")[0] == "fedmpt"}


def absolute_base(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parents = module.split(".")
    parents = parents[: len(parents) - node.level + is_package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def violations(module: str, imported: set[str]) -> list[str]:
    """What is wrong with the imports of a module, in words."""
    own = part_of(module)
    if own in {ROOT, "__main__"}:
        # The root is imported by everything, so it may import nothing; the entry point is imported by nothing.
        return [f"{module} imports {name}" for name in sorted(imported) if own == ROOT]
    return [
        f"{module} (rank {RANKS[own]}) imports {name} (rank {RANKS.get(part_of(name), 'unknown')})"
        for name in sorted(imported)
        if part_of(name) not in {own, ROOT} and not RANKS.get(part_of(name), float("inf")) < RANKS[own]
    ]


def modules() -> dict[str, Path]:
    paths = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(part for part in parts if part != "__init__"): path for path, parts in paths.items()}


def test_every_part_of_the_package_has_a_rank() -> None:
    unranked = {part_of(module) for module in modules()} - RANKS.keys() - {ROOT, "__main__"}
    assert not unranked, "give each new part its place in RANKS"


@pytest.mark.parametrize("module", [module for module in modules() if part_of(module) in {*RANKS, ROOT, "__main__"}])
def test_imports_go_one_way(module: str) -> None:
    path = modules()[module]
    imported = imported_modules(ast.parse(path.read_text()), module, is_package=path.name == "__init__.py")
    assert violations(module, imported) == []


@pytest.mark.parametrize(
    ("module", "code", "expected"),
    [
        ("fedmpt.losses", "import fedmpt.types", []),
        ("fedmpt.losses", "from fedmpt import types, __version__", []),
        ("fedmpt.losses", "from fedmpt.heads import csra_logits", ["fedmpt.heads"]),
        ("fedmpt.losses", "from fedmpt import methods", ["fedmpt.methods"]),
        ("fedmpt.losses", "def f():\n    import fedmpt.cli", ["fedmpt.cli"]),
        ("fedmpt.losses", "from fedmpt.unheard_of import x", ["fedmpt.unheard_of"]),
        ("fedmpt.data.voc", "from . import coco\nfrom .coco import x", []),
        ("fedmpt.data.voc", "from ..federated import client", ["fedmpt.federated"]),
        ("fedmpt.cli", "import fedmpt\nimport torch\nfrom fedmpt.methods import METHODS", []),
        ("fedmpt", "from fedmpt.types import InputError", ["fedmpt.types"]),
    ],
)
def test_the_rule_sees_every_kind_of_import(module: str, code: str, expected: list[str]) -> None:
    imported = imported_modules(ast.parse(code), module, is_package=False)
    found = violations(module, imported)
    assert len(found) == len(expected)
    assert all(name in message for name, message in zip(expected, found, strict=True))


INSIDE_CONDITIONS = {"": set(), "labels": {""}, "checks": {""}, "pipeline": {"", "labels"}}
"""Which parts of ``fedmpt.conditions`` each part may import; "" are the modules at its top."""


@pytest.mark.parametrize("module", [module for module in modules() if module.startswith("fedmpt.conditions")])
def test_imports_within_conditions_go_one_way(module: str) -> None:
    def inside(name: str) -> str:
        part = [*name.split("."), ""][2]
        return part if part in INSIDE_CONDITIONS else ""

    path = modules()[module]
    imported = imported_modules(ast.parse(path.read_text()), module, is_package=path.name == "__init__.py")
    found = {inside(name) for name in imported if name.startswith("fedmpt.conditions.")}
    if module.split(".")[1] == "conditions":
        assert found <= INSIDE_CONDITIONS[inside(module)] | {inside(module)}


def test_importing_the_package_loads_no_heavy_library() -> None:
    # Seconds differ between machines; what makes an import slow does not.
    code = "import sys, fedmpt; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = ast.literal_eval(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.decode()
    )
    assert "fedmpt" in loaded
    assert not {"torch", "transformers", "sklearn", "numpy"} & set(loaded)


def test_importing_metrics_leaves_scikit_learn_alone() -> None:
    code = "import sys, fedmpt.metrics; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
