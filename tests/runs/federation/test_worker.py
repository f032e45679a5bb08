"""What a site's worker takes and refuses: its engineer's mistakes, its own policy, and any message at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_bed import plan_of, site_handle, write_sites

from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import preset
from fedmpt.runs.federation.agreement import agreed_options
from fedmpt.runs.federation.joining import WorkerOptions
from fedmpt.runs.federation.places import without_folders
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.worker import Handle, answering, main, prepare_site
from fedmpt.types import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sites(tmp_path_factory.mktemp("worker") / "data", images=6)


@pytest.fixture(scope="module")
def plan(tiny_clip_folder: Path) -> Plan:
    federation = Federation(rounds=2, learning_rate=0.1)
    return plan_of(replace(preset("default", "fedmpt", "sites"), backbone=str(tiny_clip_folder), federation=federation))


@pytest.fixture(scope="module")
def handle(plan: Plan, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Handle:
    folder = tmp_path_factory.mktemp("kit")
    return site_handle(plan, "birch", data / "birch", kit=folder / "birch", cache=folder / "cache")


def error_of(handle: Handle, content: bytes | Message) -> str:
    answer = answering(handle)(pack(content) if isinstance(content, Message) else content)
    found = unpack(answer, source="test")
    assert found.kind == "error"
    return str(found.words["error"])


def test_no_answer_is_longer_than_the_policy_allows() -> None:
    answer = answering(lambda message: Message("scores", {}, {"x": torch.zeros(1000)}), most=4000)
    found = unpack(answer(pack(Message("score"))), source="test")
    assert "bytes, and its policy.json allows 4000 (max_bytes)" in found.words["error"]
    assert len(answering(lambda message: Message("scores"), most=4000)(pack(Message("score")))) < 4000


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"methods": ["promptfl"]}, r"policy.json allows promptfl, and the federation trains fedmpt"),
        ({"min_images": 100}, r"policy.json asks for at least 100 training images .* has 5"),
        ({"min_pictures": 1}, r"unknown field 'min_pictures'"),
    ],
)
def test_a_site_holds_to_its_own_policy(
    plan: Plan, data: Path, tmp_path: Path, policy: dict[str, Any], expected: str
) -> None:
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    with pytest.raises(InputError, match=expected):
        site_handle(plan, "ash", data / "ash", kit=tmp_path, cache=tmp_path / "cache")


def test_a_class_that_the_federation_does_not_have_is_named_before_anything_is_computed(
    plan: Plan, data: Path, tmp_path: Path
) -> None:
    fixed = replace(plan, class_names=("cats", "dog", "table"))
    with pytest.raises(InputError, match=r"3 classes; did you mean 'cats'\? Write it so, take its labels out, or"):
        site_handle(fixed, "ash", data / "ash", kit=tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_images_without_any_label_are_refused(plan: Plan, data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.png").write_bytes((data / "ash/0.png").read_bytes())
    (tmp_path / "photos/labels.csv").write_text("image,cat,dog\n0.png,0,0\n")
    with pytest.raises(InputError, match="no training image shows any of the classes"):
        site_handle(plan, "ash", tmp_path / "photos", kit=tmp_path / "kit", cache=tmp_path / "cache")


def test_one_image_is_enough_for_a_site(plan: Plan, data: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/0.png").write_bytes((data / "ash/0.png").read_bytes())
    (tmp_path / "photos/labels.csv").write_text("image,labels\n0.png,cat\n")
    options = WorkerOptions(
        kit=str(tmp_path / "kit"), data=f"folder:{tmp_path / 'photos'}", cache=str(tmp_path / "cache"), quiet=True
    )
    (tmp_path / "kit").mkdir()
    site = prepare_site(options, "ash", plan, note=lambda text: None)
    words = site.handle(Message("describe", {"options": agreed_options(plan.run)})).words
    assert (words["images"], words["test_images"], words["class_names"]) == (1, 0, ["cat"])


def test_whatever_comes_is_answered_in_words(plan: Plan, handle: Handle) -> None:
    assert "no message" in error_of(handle, b"\x00" * 100)
    assert "asks for 'run'" in error_of(handle, Message("run", {"command": "id"}))
    assert "started anew" in error_of(handle, Message("train", {"round": 1}))
    for words in ({}, {"options": 3}, {"options": {"method.name": "promptfl"}}):
        assert "its options differ" in error_of(handle, Message("describe", words))
    for names in (None, ["cat", "cat"], ["cat"], [1, 2], ["cat", "table" * 100]):
        assert error_of(handle, Message("enter", {"class_names": names}))
    handle(Message("enter", {"class_names": ["cat", "cup", "table"], "rounds_done": 0}))
    wrong: list[dict[str, Any]] = [
        {},
        {"round": 0, "learning_rate": 0.1, "clients": [1], "best": 0},
        {"round": 1, "learning_rate": "nan", "clients": [1], "best": 0},
        {"round": 1, "learning_rate": 0.1, "clients": [], "best": 0},
        {"round": "x", "learning_rate": 0.1, "clients": [1], "best": 0},
    ]
    for words in wrong:
        assert "in words that nobody knows" in error_of(handle, Message("train", words))
    fine = {"round": 1, "learning_rate": 0.1, "clients": [1], "best": 0}
    assert "is missing" in error_of(handle, Message("train", fine, {"state/x": torch.zeros(2)}))
    assert "is missing" in error_of(handle, Message("counts", {}, {"counts/pairs": torch.zeros(9)}))
    assert "is missing" in error_of(handle, Message("finish", {"kept_round": 1}))
    assert "says None for soft_ties" in error_of(handle, Message("score", {"split": "test"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("singles", torch.tensor([9, 1, 1])),
        ("known", torch.tensor([[9, 2, 2], [2, 2, 2], [2, 2, 2]])),
        ("known", torch.tensor([[2, 2, 2], [1, 2, 2], [2, 2, 2]])),
        ("known", torch.tensor([[2, 0, 2], [0, 2, 2], [2, 2, 2]])),
        ("known", torch.tensor([[2, 2, 2], [2, 2, 2], [2, 2, 1]])),
        ("pairs", torch.ones(3, 3, dtype=torch.int64)),
        ("pairs", torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]])),
        ("pairs", torch.tensor([[0, -1, 0], [-1, 0, 0], [0, 0, 0]])),
        ("images", torch.tensor([-4])),
    ],
)
def test_counts_that_contradict_each_other_are_refused(name: str, value: torch.Tensor) -> None:
    from fedmpt.runs.federation.exchange import counts_of

    pairs = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    fine = {
        "images": torch.tensor([2]),
        "singles": torch.tensor([2, 1, 0]),
        "pairs": pairs,
        "known": torch.full((3, 3), 2),
    }
    assert counts_of(fine, 3, source="site a").num_images == 2
    with pytest.raises(InputError, match="site a: the counts of labels contradict each other"):
        counts_of({**fine, name: value}, 3, source="site a")


def test_a_plan_cannot_name_code_that_a_site_would_run(plan: Plan, data: Path, tmp_path: Path) -> None:
    from fedmpt.federated.flare.kits import INVITATION, Invitation
    from fedmpt.runs.federation.worker import ready

    ran = tmp_path / "ran"
    (tmp_path / "model.py").write_text(f"from pathlib import Path\ndef load():\n    Path({str(ran)!r}).touch()\n")
    spec = f"{tmp_path / 'model.py'}:load"
    foreign = replace(plan, run=replace(plan.run, backbone=spec))
    (tmp_path / INVITATION).write_text(
        json.dumps(Invitation("ash", "SHA256:" + ":".join(["AB"] * 32), foreign.to_json()).to_json())
    )
    options = WorkerOptions(kit=str(tmp_path), data=f"folder:{data / 'ash'}", cache=str(tmp_path / "cache"), quiet=True)
    with pytest.raises(InputError, match=r"no coordinator may choose what runs here; .* --backbone"):
        ready(options, note=lambda text: None)
    assert not ran.exists()
    with pytest.raises(InputError):  # The site's engineer may: the code is then run, and makes no model.
        ready(replace(options, backbone=spec), note=lambda text: None)
    assert ran.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/ward 7/a.png is broken; copy it", "ward 7/a.png is broken; copy it"),  # A blank ends a path.
        ("/srv/ward7/scans/a.png is broken", "a.png is broken"),
        ("cannot read '/home/ann/kit/personal/round-1.safetensors'", "cannot read 'round-1.safetensors'"),
        (r"C:\data\ward\a.png is broken", "a.png is broken"),
        ("labels of 3/4 images and/or more", "labels of 3/4 images and/or more"),
    ],
)
def test_the_coordinator_does_not_hear_where_files_are(text: str, expected: str) -> None:
    assert without_folders(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/ward 7/a.png is broken; copy it", "a.png is broken; copy it"),
        ("/srv/ward 7/x ray/left/a b.png is broken", "a b.png is broken"),
        ("[Errno 28] No space left on device: '/srv/ward 7'", "[Errno 28] No space left on device: '(a folder)'"),
        ("[Errno 2] No such file: '/mnt/its own disk/a.png'", "[Errno 2] No such file: 'a.png'"),
        ('No such file: "/mnt/ann\'s disk/a b.png"', 'No such file: "a b.png"'),
        ("photos/left/a.png: two photos are one", "a.png: two photos are one"),
        ("scans/ward 7/labels.csv, line 3: no image 'a.png'", "labels.csv, line 3: no image 'a.png'"),
        ("folder:scans/ward 7 has no labels", "(a folder) has no labels"),
        ("/srv/ward 70/a.png and my-scans/b.png", "a.png and my-scans/b.png"),  # The last is none of those known.
        ("/srv/v1.0 x/a.png holds 3/4 of it", "a.png holds 3/4 of it"),
        ("D:\\its scans\\left side\\a.png is broken", "a.png is broken"),
        ("3/4 of the labels and/or images", "3/4 of the labels and/or images"),
    ],
)
def test_what_the_worker_knows_is_hidden_with_blanks_and_as_it_was_given(text: str, expected: str) -> None:
    known = ("/srv/ward 7", "/srv", "photos", "scans/ward 7", "folder:scans/ward 7", "scans", "D:\\its scans")
    assert without_folders(text, known) == expected


def test_a_worker_answers_without_its_folders(
    plan: Plan, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, photos = tmp_path / "the kit", tmp_path / "x ray" / "photos"
    kit.mkdir()
    photos.mkdir(parents=True)
    (tmp_path / "linked").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    options = WorkerOptions(kit=str(kit), data="folder:linked", cache="the cache", backbone="x ray")
    places = [kit, photos, tmp_path / "linked", tmp_path / "the cache", Path.home() / "my files", tmp_path]
    errors = iter(
        [*(f"{place}/a b.png is broken" for place in [*places, "linked", "x ray", "the cache"]), "folder:linked"]
    )

    def fails(message: Message) -> Message:
        raise InputError(next(errors))

    served: list[Any] = []
    monkeypatch.setattr("fedmpt.runs.federation.worker.ready", lambda options, note: fails)
    monkeypatch.setattr("fedmpt.federated.flare.sockets.serve", lambda path, answer: served.append(answer))
    monkeypatch.setattr("sys.argv", options.command()[2:])
    monkeypatch.setenv("FEDMPT_WORKER_SOCKET", "socket")
    main()
    found = [unpack(served[0](pack(Message("score"))), source="test").words["error"] for _ in range(10)]
    assert found == ["a b.png is broken"] * 9 + ["(a folder)"]
