"""`fedmpt features`: computing ahead, listing, and removing only what was asked for."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Command, Outcome, Place

from fedmpt.cli.features import features
from fedmpt.data import load_data
from fedmpt.data.features import build as feature_build
from fedmpt.data.features.files import read_store


@pytest.fixture(scope="module")
def built(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with features of training and test images; not to be changed."""
    cache = tmp_path_factory.mktemp("built") / "cache"
    features(build_words(place, cache)[1:])
    return cache


@pytest.fixture
def cache(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "cache"))


def build_words(place: Place, cache: Path, *extra: str) -> list[str]:
    words = ["features", "build", "--data", f"voc:{place.voc}", "--backbone", str(place.clip), "--cache", str(cache)]
    return [*words, *extra]


def stores(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "features").iterdir())


def listed(run: Command, cache: Path) -> list[dict[str, object]]:
    outcome = run("features", "list", "--json", "--cache", cache)
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert isinstance(found, list)
    return found


def clean(run: Command, cache: Path, *words: str) -> Outcome:
    return run("features", "clean", "--cache", cache, *words)


def assert_refused(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith(f"fedmpt features: {message}")


def test_training_finds_what_was_built(place: Place, cache: Path, run: Command, tmp_path: Path) -> None:
    before = stores(cache)
    assert len(before) == 2
    outcome = run(*place.train_words(tmp_path / "run"), "--cache", cache)
    assert outcome.code == 0
    assert "computing image features" not in outcome.err
    assert stores(cache) == before


def test_build_says_what_there_is(place: Place, cache: Path, run: Command) -> None:
    outcome = run(*build_words(place, cache))
    assert (outcome.code, outcome.out) == (0, "")
    train, test = outcome.err.splitlines()
    assert train.startswith("train: 24 images, 16 x 40, 32.6 kB in float16, in ")
    assert test.startswith("test: 8 images, 16 x 40, 10.9 kB in float16, in ")
    assert Path(train.split(" in ")[-1]).name in stores(cache)


def test_a_data_set_with_nothing_to_train_on(
    place: Place, cache: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data(f"voc:{place.voc}")
    empty = replace(data.train, files=(), labels=data.train.labels[:0])
    monkeypatch.setattr("fedmpt.data.load_data", lambda spec, **options: replace(data, train=empty))
    outcome = run(*build_words(place, cache))
    assert outcome.code == 0
    train, test = outcome.err.splitlines()
    assert train == "train: no images"
    assert test.startswith("test: 8 images, ")


def test_other_number_formats(place: Place, cache: Path, run: Command) -> None:
    assert (
        run(*build_words(place, cache, "--store-dtype", "bfloat16", "--dtype", "bf16", "--batch-size", "5")).code == 0
    )
    formats = sorted(str(stored["dtype"]) for stored in listed(run, cache))
    assert formats == ["bfloat16", "bfloat16", "float16", "float16"]


def test_a_corrupt_image(place: Place, run: Command, tmp_path: Path) -> None:
    voc = Path(shutil.copytree(place.voc, tmp_path / "voc"))
    broken = sorted((voc / "VOC2007" / "JPEGImages").iterdir())[0]
    broken.write_bytes(b"no picture")
    own = Place(place.clip, voc, tmp_path / "cache")
    outcome = run(*build_words(own, own.cache))
    assert_refused(outcome, f"{broken}: the image cannot be read")
    assert outcome.err.endswith("or leave such images out with --skip-corrupt\n")
    outcome = run(*build_words(own, own.cache, "--skip-corrupt"))
    assert outcome.code == 0
    assert f"left out, cannot be read: {broken}" in outcome.err.splitlines()


def test_a_build_that_is_interrupted(
    place: Place, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, num_batches = feature_build._encode, [0]

    def stop_in_the_third(*args: object) -> object:
        num_batches[0] += 1
        if num_batches[0] == 3:
            raise KeyboardInterrupt
        return encode(*args)  # type: ignore[arg-type]

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(feature_build, "_encode", stop_in_the_third)
        outcome = run(*build_words(place, cache))
    assert outcome.code == 130
    assert outcome.err.endswith("fedmpt features: interrupted; what is done is stored, the same command goes on\n")
    (stored,) = listed(run, cache)
    assert (stored["state"], stored["images_done"], stored["rows"]) == ("interrupted", 8, 24)
    assert "8 of 24" in run("features", "list", "--cache", cache).out
    copy = Path(shutil.copytree(cache, tmp_path / "copy"))
    assert clean(run, copy, "--damaged", "--yes").err == "nothing to remove\n"
    assert clean(run, copy, "--interrupted", "--yes").code == 0
    assert stores(copy) == []
    outcome = run(*build_words(place, cache))
    assert outcome.code == 0
    assert "computing image features (8 of 24 are there, the others take 21.8 kB in float16; " in outcome.err
    assert [stored["state"] for stored in listed(run, cache)] == ["complete", "complete"]


def test_list(cache: Path, place: Place, run: Command) -> None:
    first, second = listed(run, cache)
    assert {first["rows"], second["rows"]} == {24, 8}
    for stored in (first, second):
        assert stored["made_for"]["data"] == f"voc:{place.voc}"  # type: ignore[index]
        assert stored["made_for"]["split"] == ("train" if stored["rows"] == 24 else "test")  # type: ignore[index]
        assert (stored["state"], stored["num_patches"], stored["width"]) == ("complete", 16, 40)
        assert stored["folder"] == str(cache / "features" / str(stored["key"]))
    outcome = run("features", "list", "--cache", cache)
    assert outcome.code == 0
    for word in ("key", "data", "model", "images", "M x D", "last used", "state"):
        assert word in outcome.out
    for stored in (first, second):
        (row,) = [line for line in outcome.out.splitlines() if str(stored["key"])[:12] in line]
        made_for = f"voc:{place.voc} {'train' if stored['rows'] == 24 else 'test'} ("
        for word in (made_for, " tiny ", f" {stored['rows']} ", " 16 x 40 ", " float16 ", " complete "):
            assert word in row
    assert outcome.err.startswith("2 stores, ")


def test_list_of_an_empty_cache(run: Command, tmp_path: Path) -> None:
    assert listed(run, tmp_path) == []
    outcome = run("features", "list", "--cache", tmp_path)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == f"0 stores, 0 bytes, in {tmp_path / 'features'}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is chosen; give --older-than DAYS, --interrupted, --damaged or --key PREFIX, or just --all"),
        (["--yes"], "nothing is chosen"),
        (["--all", "--damaged"], "--all goes alone"),
        (["--all", "--key", "0"], "--all goes alone"),
        (["--older-than", "-1"], "--older-than must be a number of days, not negative, got -1.0"),
        (["--older-than", "nan"], "--older-than must be a number of days, not negative, got nan"),
        (["--all"], "nothing was removed, as nobody can be asked here; give --yes"),
    ],
)
def test_clean_needs_to_know_what(
    cache: Path, run: Command, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    before = stores(cache)
    assert_refused(clean(run, cache, *words), message)
    assert stores(cache) == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "is_removed"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_clean_asks(cache: Path, run: Command, answer: str, is_removed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    keys = stores(cache)
    outcome = clean(run, cache, "--all")
    assert (outcome.code, outcome.out) == (0, "")
    assert "remove 2 stores, " in outcome.err
    assert "? [y/N] " in outcome.err
    assert all(key[:12] in outcome.err for key in keys)
    assert stores(cache) == ([] if is_removed else keys)
    assert ("nothing was removed" in outcome.err) == (not is_removed)


def test_clean_by_key(cache: Path, run: Command) -> None:
    first, second = stores(cache)
    assert clean(run, cache, "--key", first[:12], "--yes").code == 0
    assert stores(cache) == [second]
    outcome = clean(run, cache, "--key", first[:12], "--yes")
    assert (outcome.code, outcome.err) == (0, "nothing to remove\n")


def test_clean_by_last_use(cache: Path, run: Command) -> None:
    first, second = stores(cache)
    os.utime(cache / "features" / first / "store.json", (1000, 1000))
    assert clean(run, cache, "--older-than", "30", "--yes").code == 0
    assert stores(cache) == [second]


def test_clean_damaged(cache: Path, run: Command) -> None:
    first, second = stores(cache)
    (cache / "features" / first / "pooled.npy").unlink()
    assert " damaged " in run("features", "list", "--cache", cache).out
    assert clean(run, cache, "--interrupted", "--yes").err == "nothing to remove\n"
    assert clean(run, cache, "--interrupted", "--damaged", "--yes").code == 0
    assert stores(cache) == [second]


def test_clean_leaves_what_is_used(cache: Path, run: Command) -> None:

    first, second = stores(cache)
    store = read_store(cache / "features" / first)
    outcome = clean(run, cache, "--all", "--yes")
    assert outcome.code == 0
    assert f"left alone, another process is using it: {cache / 'features' / first}" in outcome.err.splitlines()
    assert stores(cache) == [first]
    assert store is not None
    assert second not in stores(cache)


def test_unknown_words(run: Command) -> None:
    assert run("features").code == 2
    assert run("features", "lst").code == 2
    assert run("features", "build").code == 2


def test_help_is_light(run: Command) -> None:

    code = (
        "import sys, fedmpt.cli.features as c\n"
        "try: c.features(['clean', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
