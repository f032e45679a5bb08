"""Several processes that want the same features: one computes, the others wait, and a kill is in nobody's way."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_backbone import FakeBackbone, stores
from feature_builds import python

from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.types import InputError, Split

COMPUTING = """
import sys
from pathlib import Path
from fake_backbone import FakeBackbone, write_split
from fedmpt.data.features.store import open_features
backbone = FakeBackbone()
def stop(pixels):
    if len(backbone.batches) == 3:
        print("computing", flush=True)
        sys.stdin.readline()
backbone.before = stop
open_features(backbone, write_split(Path(sys.argv[1]), 10), cache=Path(sys.argv[2]), batch_size=3)
"""


@contextmanager
def computing(tmp_path: Path, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in its third of four batches, which goes on at a line."""
    call = python(COMPUTING, tmp_path / "images", cache)
    with subprocess.Popen(**call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"computing\n"
        yield process


def open_meanwhile(
    backbone: FakeBackbone, split: Split, cache: Path, capfd: pytest.CaptureFixture[str]
) -> tuple[threading.Thread, list[FeatureSet]]:
    """Another that wants the features, once it waits for them."""
    opened: list[FeatureSet] = []
    thread = threading.Thread(
        target=lambda: opened.append(open_features(backbone, split, cache=cache, batch_size=3)), name="waiting"
    )
    thread.start()
    err = ""
    while "waiting for another process, which computes them in " not in err:
        assert thread.is_alive()
        time.sleep(0.01)
        err += capfd.readouterr().err
    assert f"{cache}/features/" in err
    return thread, opened


def test_one_process_computes_and_the_other_waits(
    split: Split, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = FakeBackbone()
    with computing(tmp_path, cache) as first:
        thread, opened = open_meanwhile(backbone, split, cache, capfd)
        first.communicate(b"\n")
        thread.join(60)
    assert first.returncode == 0
    assert backbone.batches == []
    assert len(opened[0]) == 10
    assert len(stores(cache)) == 1  # And beside it nothing, no lock either.


def test_when_the_one_that_computes_is_killed_the_other_goes_on_with_its_rows(
    split: Split, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = FakeBackbone()
    with computing(tmp_path, cache) as first:
        thread, opened = open_meanwhile(backbone, split, cache, capfd)
        first.kill()
        thread.join(60)
        assert first.wait() == -signal.SIGKILL
    assert backbone.batches == [3, 1]
    assert len(opened[0]) == 10
    assert len(stores(cache)) == 1


def test_when_the_one_that_computes_fails_the_other_goes_on(split: Split, cache: Path) -> None:
    split.files[7].write_bytes(b"no picture")
    backbone, entered, errors = FakeBackbone(), threading.Event(), []

    def wait_for_the_other(pixels: object) -> None:
        entered.set()
        time.sleep(0.1)

    def first() -> None:
        with pytest.raises(InputError, match=r"007\.png") as raised:
            open_features(FakeBackbone(before=wait_for_the_other), split, cache=cache, batch_size=3)
        errors.append(raised.value)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(60)
    features = open_features(backbone, split, cache=cache, batch_size=3, skip_corrupt=True)
    thread.join()
    assert len(errors) == 1
    assert backbone.batches == [2, 1]
    assert len(features) == 9
