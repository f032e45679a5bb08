"""Wrong input: exit code 2, one message that says what and how to mend it, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Command, Place, assert_refused, read_results, read_rounds, snapshot
from tiny_voc import write_annotation, write_tiny_voc

WRONG_OPTIONS = {
    "t 0": (["--t", "0"], r"--t must be in \(0, 1\], got 0\.0"),
    "t 2": (["--t", "2"], r"--t must be in \(0, 1\], got 2\.0"),
    "t NaN": (["--t", "nan"], r"--t must be in \(0, 1\], got nan"),
    "too few label sets": (["--t", "0.9"], r"18 clients .* only 8; the largest t that works is 0\.4"),
    "iid with t": (["--setting", "iid", "--clients", "2"], "--t goes with --setting heterogeneous"),
    "heterogeneous with clients": (["--clients", "3"], "--clients goes with --setting iid"),
    "unknown method": (["--method", "fedmtp"], "unknown method 'fedmtp'; there are fedmpt, promptfl"),
    "unknown preset": (["--preset", "papre"], "unknown preset 'papre'; there are default, paper"),
    "unknown data set": (["--data", "vok:/data"], "unknown data set 'vok'; did you mean 'voc'"),
    "data set without folder": (["--data", "voc"], "the folder is missing; expected NAME:PATH"),
    "missing data": (
        ["--data", "voc:/nowhere/VOC"],
        "/nowhere/VOC is no folder; expected one with VOC2007",
    ),
    "negative learning rate": (["--learning-rate", "-1"], r"--learning-rate must be positive, got -1\.0"),
    "no rounds": (["--rounds", "0"], "--rounds must be positive, got 0"),
    "participation": (["--participation", "1.5"], r"--participation must be in \(0, 1\], got 1\.5"),
    "no such device": (["--device", "gpu"], "device 'gpu' cannot be used .* here there is cpu"),
    "too long prompts": (["--num-class-context", "90"], "tokens, the text tower takes 77"),
    "hub while offline": (["--backbone", "openai/clip-vit-base-patch16"], "the hub did not give it .* local folder"),
    "backbone path": (["--backbone", "./nowhere"], "no such folder"),
    "nodes without an engine": (["--nodes", "2"], "--nodes goes with --engine flare"),
    "an engine without nodes": (["--engine", "flare"], "--engine flare needs --nodes, at least 1"),
    "no address": (
        ["--engine", "flare", "--nodes", "2", "--address", "x", "--data", "voc:/none"],
        "'x' is no HOST:PORT",
    ),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_wrong_options(place: Place, run: Command, tmp_path: Path, case: str) -> None:
    words, message = WRONG_OPTIONS[case]
    assert_refused(run(*place.train_words(tmp_path / "a", *words)), message)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--setting iid needs --clients, at least 1; none is given"),
        (["--clients", "0"], "--setting iid needs --clients, at least 1; got 0"),
        (["--clients", "100"], "100 clients cannot share 24 images; choose fewer clients"),
    ],
)
def test_wrong_numbers_of_iid_clients(
    place: Place, run: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    assert_refused(run(*place.train_words(tmp_path / "a", "--setting", "iid", *words, t=None)), message)
    assert not (tmp_path / "a").exists()


def test_an_address_that_cannot_be_listened_on(
    place: Place, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: NVFlare would try on and on."""

    def refused(address: str, message: str) -> None:
        words = ("--engine", "flare", "--nodes", "2", "--address", address, "--data", "voc:/none")
        assert_refused(run(*place.train_words(tmp_path / "a", *words)), message)
        assert not (tmp_path / "a").exists()

    with socket.create_server(("localhost", 0)) as other:
        address = f"localhost:{other.getsockname()[1]}"
        refused(address, f"--address {address}: port .* is taken on this machine: .* choose another port")
    refused("a..b:8102", r"--address a\.\.b:8102: this machine does not know the name a\.\.b; correct it")

    def unknown(host: str, port: int) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refused("fl.example:8102", r"--address fl\.example:8102: this machine does not know the name")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(place: Place, run: Command, tmp_path: Path) -> None:
    outcome = run(*place.train_words(tmp_path / "a", "--device", "cuda"))
    assert_refused(outcome, "device 'cuda' cannot be used .* here there is cpu")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--leraning-rate", "1"], ["--leraning-rate", "--learning-rate"]),
        (["--learning-rate", "fast"], ["--learning-rate", "'fast'"]),
        (["--preset"], ["--preset"]),
    ],
)
def test_words_that_are_no_options(
    place: Place, run: Command, tmp_path: Path, words: list[str], shown: list[str]
) -> None:
    outcome = run(*place.train_words(tmp_path / "a", *words))
    assert (outcome.code, outcome.out) == (2, "")
    assert all(word in outcome.err for word in [*shown, "--help"])
    assert not (tmp_path / "a").exists()


def test_what_has_to_be_given(place: Place, run: Command, tmp_path: Path) -> None:
    assert_refused(run("train", "--data", f"voc:{place.voc}"), "give a folder for the run with --out")
    assert_refused(run("train", "--data", f"voc:{place.voc}", "--out", ""), "give a folder for the run with --out")
    assert_refused(run("train", "--out", tmp_path / "a"), "give a data set with --data")
    message = "a holds no run to continue; check --out, or give a data set with --data"
    assert_refused(run("train", "--out", tmp_path / "a", "--resume"), message)
    outcome = run("trian")
    assert (outcome.code, outcome.err) == (
        2,
        "fedmpt: unknown command 'trian'; there are train, tune, evaluate, calibrate, predict, methods, conditions, "
        "data, federation, features and demo\n",
    )


def empty_split(voc: Path) -> None:
    (voc / "VOC2007/ImageSets/Main/test.txt").write_text("")


def unknown_class(voc: Path) -> None:
    path = voc / "VOC2007/Annotations/000001.xml"
    path.write_text(path.read_text().replace("<name>cat", "<name>kat"))


def text_for_an_image(voc: Path) -> None:
    (voc / "VOC2007/JPEGImages/000003.jpg").write_text("no picture")


def half_an_image(voc: Path) -> None:
    os.truncate(voc / "VOC2007/JPEGImages/000502.jpg", 400)


def missing_image(voc: Path) -> None:
    (voc / "VOC2007/JPEGImages/000003.jpg").unlink()


def only_dogs(voc: Path) -> None:
    for path in (voc / "VOC2007/Annotations").iterdir():
        write_annotation(voc / "VOC2007", path.stem, ["dog"])


def nothing_in_the_test_split(voc: Path) -> None:
    for path in (voc / "VOC2007/Annotations").glob("0005*.xml"):
        write_annotation(voc / "VOC2007", path.stem, [])


DAMAGED_DATA: dict[Callable[[Path], None], str] = {
    empty_split: r"test\.txt is empty; expected one image id a line",
    unknown_class: r"000001\.xml, object 1: unknown class 'kat'; did you mean 'cat'",
    text_for_an_image: r"000003\.jpg: .*--skip-corrupt",
    half_an_image: r"000502\.jpg: .*--skip-corrupt",
    missing_image: r"trainval\.txt: image '000003\.jpg' is missing",
    only_dogs: r"4 clients .* only 1; the largest t that works is 0\.05",
    nothing_in_the_test_split: "no image of the test split shows any of the classes",
}


@pytest.mark.parametrize("damage", DAMAGED_DATA)
def test_damaged_data(place: Place, run: Command, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    voc = write_tiny_voc(tmp_path / "voc")
    damage(voc)
    outcome = run(*place.train_words(tmp_path / "a", "--data", f"voc:{voc}"))
    assert_refused(outcome, DAMAGED_DATA[damage])
    assert not (tmp_path / "a").exists()


def test_a_single_class_can_be_trained(place: Place, run: Command, tmp_path: Path) -> None:
    voc = write_tiny_voc(tmp_path / "voc")
    only_dogs(voc)
    words = ["--data", f"voc:{voc}", "--setting", "iid", "--clients", "2"]
    assert run(*place.train_words(tmp_path / "a", *words, t=None)).code == 0
    assert read_results(tmp_path / "a")["test"]["classes_without_positives"] == 19


def test_a_folder_that_holds_a_run(place: Place, run: Command, trained: Path) -> None:
    before = snapshot(trained)
    assert_refused(run(*place.train_words(trained)), "already holds a run; continue it with --resume or choose another")
    outcome = run(*place.train_words(trained, "--resume", "--seed", "3", "--learning-rate", "0.125"))
    assert_refused(outcome, r"other options \(federation\.learning_rate was .*, now 0\.125; seed was 0, now 3\)")
    assert_refused(run("train", "--out", trained, "--resume", "--method", "promptfl"), "holds a run of fedmpt, not")
    assert_refused(run("train", "--out", trained, "--resume", "--preset", "paper"), "federation.rounds was 2, now 50")
    assert snapshot(trained) == before


def test_output_that_cannot_be_written(place: Place, run: Command, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert_refused(run(*place.train_words(file)), f"--out {file} is a file; give a folder")
    assert_refused(run(*place.train_words(file / "a")), f"--out {file}/a: {file} is a file, not a folder")
    assert file.read_text() == "mine"
    words = ("evaluate", "--checkpoint", trained / "checkpoint", "--data", f"voc:{place.voc}", "--out", tmp_path)
    assert_refused(run(*words), f"--out {tmp_path} is a folder; give a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_one_may_not_write_to(place: Place, run: Command, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert_refused(run(*place.train_words(tmp_path / "closed" / "a")), "closed may not be written to")


def test_divergence_keeps_the_last_good_round(place: Place, run: Command, tmp_path: Path) -> None:
    words = ["--method", "promptfl", "--learning-rate", "1e30"]
    outcome = run(*place.train_words(tmp_path / "a", *words, rounds=5))
    assert outcome.code == 2
    assert re.search(r"^fedmpt train: client 0, round 2: .*lower learning rate$", outcome.err, re.MULTILINE)
    assert "Traceback" not in outcome.err
    assert [line["round"] for line in read_rounds(tmp_path / "a")] == [1]
    assert json.loads((tmp_path / "a/checkpoint/checkpoint.json").read_text())["rounds_done"] == 1
    assert not (tmp_path / "a" / "results.json").exists()
    image = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    assert "rounds" not in run("predict", "--checkpoint", tmp_path / "a/checkpoint", image).err


def test_divergence_of_fedmpt(place: Place, run: Command, tmp_path: Path) -> None:
    outcome = run(*place.train_words(tmp_path / "a", "--learning-rate", "1e30", rounds=5))
    assert outcome.code == 2
    assert re.search(r"^fedmpt train: client 0, round \d: .*lower learning rate$", outcome.err, re.MULTILINE)
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("folder_exists", [False, True])
def test_divergence_in_the_first_round_leaves_nothing(
    place: Place, run: Command, tmp_path: Path, folder_exists: bool
) -> None:
    out = tmp_path / "a"
    if folder_exists:
        out.mkdir()
        (out / "note.txt").write_text("mine")
    before = snapshot(out)
    words = ["--method", "promptfl", "--learning-rate", "1e30", "--local-epochs", "9"]
    outcome = run(*place.train_words(out, *words))
    assert outcome.code == 2
    assert re.search(r"^fedmpt train: client 0, round 1: .*lower learning rate$", outcome.err, re.MULTILINE)
    assert {name: file for name, file in snapshot(out).items() if name != ".fedmpt.lock"} == before
    assert out.exists() == folder_exists
