"""The architecture: imports go one way, rooms stay small and say what they are for, and importing costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "fedmpt"

DRAWING = (
    ("types", "errors", "files", "seeding", "state"),
    ("backbone",),
    ("data",),
    ("llm",),
    ("conditions",),
    ("methods",),
    ("evaluation",),
    ("federated",),
    ("runs",),
    ("inference",),
    ("report",),
    ("cli",),
)
"""The drawing of docs/architecture.md from below. A room imports rooms below it; those of one floor, see `FLOOR`."""
RANKS = {name: rank for rank, floor in enumerate(DRAWING) for name in floor}
FLOOR = {"errors": set(), "files": {"errors"}, "seeding": set(), "state": {"types"}, "types": {"errors"}}
"""What the words and small tools at the top of the package import of each other."""
INSIDE = {"labels": set(), "checks": set(), "scores": set(), "pipeline": {"labels"}}
"""Which parts of `fedmpt.conditions` each part imports, beside the modules at its top."""
ROOT = ""
"""The package's own `__init__`: it holds the version, which everything may import, and loads the rest on demand."""
MAX_FUNCTION, MAX_FILE, MAX_NAMES = 60, 300, 16


def part_of(module: str) -> str:
    """``fedmpt.data.images`` belongs to ``data``; ``fedmpt`` has a part of its own."""
    return [*module.split("."), ROOT][1]


def imported_modules(tree: ast.AST, module: str, *, is_package: bool) -> set[str]:
    """All modules of the package that are imported anywhere in a file, within functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute_base(node, module, is_package=is_package)
            # `from fedmpt import runs` imports a part, `from fedmpt import __version__` a name of the root.
            found.update(f"{base}.{alias.name}" if base == "fedmpt" else base for alias in node.names)
    return {"fedmpt" if name == "fedmpt.__version__" else name for name in found if name.split(".")[0] == "fedmpt"}


def absolute_base(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parents = module.split(".")
    parents = parents[: len(parents) - node.level + is_package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def is_allowed(own: str, other: str) -> bool:
    """Whether modules of one part may import those of another."""
    if other in {own, ROOT}:
        return True
    return other in FLOOR[own] if own in FLOOR else RANKS.get(other, len(DRAWING)) < RANKS[own]


def violations(module: str, imported: set[str]) -> list[str]:
    """What is wrong with the imports of a module, in words."""
    own = part_of(module)
    if own == ROOT:  # Everything imports the root, so it imports nothing where it is loaded.
        return [f"{module} imports {name}" for name in sorted(imported)]
    return [f"{module} imports {name}" for name in sorted(imported) if not is_allowed(own, part_of(name))]


def modules() -> dict[str, Path]:
    paths = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(part for part in parts if part != "__init__"): path for path, parts in paths.items()}


def top_level(tree: ast.Module) -> ast.Module:
    """The statements that run when a module is loaded."""
    return ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.If)], [])


def test_every_part_of_the_package_has_a_place_in_the_drawing() -> None:
    assert {part_of(module) for module in modules()} - {ROOT} == RANKS.keys()
    assert len(RANKS) <= MAX_NAMES


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module: str) -> None:
    path = modules()[module]
    tree = ast.parse(path.read_text())
    tree = top_level(tree) if module == "fedmpt" else tree
    assert violations(module, imported_modules(tree, module, is_package=path.name == "__init__.py")) == []


@pytest.mark.parametrize(
    ("module", "code", "expected"),
    [
        ("fedmpt.backbone.load", "import fedmpt.types", []),
        ("fedmpt.backbone.load", "from fedmpt import types, __version__", []),
        ("fedmpt.backbone.load", "from fedmpt.data.images import read_image", ["fedmpt.data.images"]),
        ("fedmpt.backbone.load", "from fedmpt import methods", ["fedmpt.methods"]),
        ("fedmpt.backbone.load", "def f():\n    import fedmpt.cli", ["fedmpt.cli"]),
        ("fedmpt.backbone.load", "from fedmpt.unheard_of import x", ["fedmpt.unheard_of"]),
        ("fedmpt.data.images", "from . import coco\nfrom .coco import x", []),
        ("fedmpt.data.images", "from ..federated import client", ["fedmpt.federated"]),
        ("fedmpt.seeding", "from fedmpt.types import State", ["fedmpt.types"]),
        ("fedmpt.cli.main", "import fedmpt\nimport torch\nfrom fedmpt.methods import METHODS", []),
        ("fedmpt", "from fedmpt.types import InputError", ["fedmpt.types"]),
    ],
)
def test_the_rule_sees_every_kind_of_import(module: str, code: str, expected: list[str]) -> None:
    imported = imported_modules(ast.parse(code), module, is_package=False)
    found = violations(module, imported)
    assert len(found) == len(expected)
    assert all(name in message for name, message in zip(expected, found, strict=True))


@pytest.mark.parametrize("module", [module for module in modules() if module.startswith("fedmpt.conditions.")])
def test_imports_within_conditions_go_one_way(module: str) -> None:
    path = modules()[module]
    imported = imported_modules(ast.parse(path.read_text()), module, is_package=path.name == "__init__.py")
    inside = {name.split(".")[2] for name in imported if name.startswith("fedmpt.conditions.")} & INSIDE.keys()
    own = module.split(".")[2]
    assert inside <= INSIDE.get(own, set()) | {own}


def test_the_engine_between_machines_is_imported_in_one_place() -> None:
    found = {
        module
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if "nvflare" in {name.split(".")[0] for name in imported_names(node)}
    }
    assert found
    assert all(module.startswith("fedmpt.federated.flare.") for module in found)


def imported_names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {node.module or ""} if isinstance(node, ast.ImportFrom) else set()


def test_no_file_and_no_function_is_long() -> None:
    long = []
    for module, path in modules().items():
        text = path.read_text()
        if (lines := text.count("\n")) > MAX_FILE:
            long.append(f"{module}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{module}.{node.name}: {lines} lines"] if lines > MAX_FUNCTION else []
    assert long == []


@pytest.mark.parametrize("folder", sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}, key=str))
def test_every_package_says_what_it_is_for_and_what_it_may_import(folder: Path) -> None:
    words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert "may import" in words
    assert len(re.findall(r"\.(?=\s|$)", words)) == 2


def loaded_by(code: str) -> set[str]:
    """The top-level packages that are loaded when a fresh interpreter has run ``code``."""
    command = f"{code}\nimport sys; print(sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(
        ast.literal_eval(
            subprocess.run([sys.executable, "-c", command], capture_output=True, check=True).stdout.decode()
        )
    )


def test_importing_the_package_loads_no_heavy_library() -> None:
    # Seconds differ between machines; what makes an import slow does not.
    loaded = loaded_by("import fedmpt")
    assert "fedmpt" in loaded
    assert not {"torch", "transformers", "sklearn", "numpy"} & loaded


def test_importing_metrics_leaves_scikit_learn_alone() -> None:
    assert "sklearn" not in loaded_by("import fedmpt.evaluation.metrics")


JOIN = """
import sys
import fedmpt.federated.flare.kits as kits, fedmpt.federated.flare.supervise as supervise
kits.assemble = lambda folder, data: None
supervise.supervise = lambda *given, **words: 0
from fedmpt.cli.main import main
try:
    main(["federation", "join", sys.argv[1], "--data", "folder:photos"])
except SystemExit as ended:
    print(ended.code, "torch" in sys.modules)
"""


def test_the_process_that_watches_over_a_sites_worker_loads_no_torch(tmp_path: Path) -> None:
    words = [sys.executable, "-c", JOIN, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "0 False\n"
