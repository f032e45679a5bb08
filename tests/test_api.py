"""The public interface: lazy, complete, documented, and what docs/api.md says of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fedmpt

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", fedmpt.__all__)
def test_every_public_name_is_there_and_described(name: str) -> None:
    assert name in dir(fedmpt)
    found = getattr(fedmpt, name)
    assert found.__doc__
    assert re.search(rf"^\| `{name}\b", PAGE, re.MULTILINE)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'fedmpt' has no attribute 'trian'"):
        fedmpt.trian  # noqa: B018


def test_type_checkers_see_what_is_loaded_on_demand() -> None:
    """They read the imports below ``TYPE_CHECKING``, which say the same as the table of what is loaded."""
    tree = ast.parse(Path(fedmpt.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: (node.module or "").removeprefix("fedmpt.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == fedmpt._WHERE
    assert sorted(imported) == sorted(fedmpt.__all__)
    assert (Path(fedmpt.__file__).parent / "py.typed").is_file()


def test_the_example_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDMPT_CACHE", str(tmp_path / "cache"))
    Image.fromarray(np.full((40, 50, 3), 120, dtype=np.uint8)).save("photo.png")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/api.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mAP \d+\.\d", printed[1])
    assert printed[2].startswith("photo.png [")
    assert (tmp_path / "runs" / "a" / "results.json").is_file()
    assert fedmpt.load("runs/a").class_names == fedmpt.load("runs/a/checkpoint").class_names
