"""Differential privacy from the command line: what is said of it, where a budget ends a run, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Command, Place, assert_refused, read_results, read_rounds

PRIVATE = ("--method", "promptfl", "--dp-noise", "1", "--clip-norm", "0.1")

WRONG_OPTIONS = {
    "without clipping": (["--method", "promptfl", "--dp-noise", "1"], "--dp-noise needs --clip-norm"),
    "without noise": (["--dp-budget", "8"], "--dp-budget goes with --dp-noise above 0"),
    "a budget for nothing": ([*PRIVATE, "--dp-budget", "4"], "--dp-budget 4 is spent before the first round"),
    "exact counts": ([*PRIVATE, "--balance"], "--balance sums exact counts of the clients' labels, .* --no-balance"),
    "counts in the model": ([*PRIVATE, "--soft-ties", "1"], "--soft-ties takes exact counts .*; give --soft-ties 0"),
    "exact scores": (
        [*PRIVATE, "--keep", "best"],
        "--keep best chooses by exact scores of the clients' images, .*--keep la",
    ),
    "statistics": (["--method", "ram", *PRIVATE[2:]], "--dp-noise does not cover RAM: it also sends 'adapters"),
    "learned mean": (["--method", "fedawa", *PRIVATE[2:]], "--dp-noise does not cover FedAWA"),
    "weighed by images": (["--method", "fedpgp", *PRIVATE[2:]], "--dp-noise needs --weighting uniform"),
    "nothing to hide": (["--method", "zero-shot", *PRIVATE[2:]], "--dp-noise has no effect: zero-shot trains nothing"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_what_noise_would_not_cover_is_refused(place: Place, run: Command, tmp_path: Path, case: str) -> None:
    words, message = WRONG_OPTIONS[case]
    assert_refused(run(*place.train_words(tmp_path / "a", *words)), message)
    assert not (tmp_path / "a").exists()


def test_a_budget_ends_a_run_that_is_complete(place: Place, run: Command, tmp_path: Path) -> None:
    """By dp_accounting, epsilon is 4.3772 after one round with noise 1; with two it is above 6."""
    words = place.train_words(tmp_path / "a", *PRIVATE, "--dp-budget", "6", "--dp-at", "sites")
    outcome = run(*words)
    assert outcome.code == 0, outcome.err
    (line,) = read_rounds(tmp_path / "a")
    results = read_results(tmp_path / "a")
    assert line["epsilon"] == results["privacy"]["epsilon"] == pytest.approx(4.3772, abs=1e-4)
    assert line["mAP"] == results["test"]["mAP"]
    # Of four clients, each adds half of the noise; dp_accounting has 9.997 for noise 0.5.
    assert results["privacy"].pop("epsilon_server") == pytest.approx(9.997, abs=2e-3)
    assert results["privacy"] == {
        "epsilon": line["epsilon"],
        "delta": 1e-5,
        "noise": 1.0,
        "clip_norm": 0.1,
        "at": "sites",
        "most_rounds_of_a_client": 1,
    }
    assert "epsilon 4.38" in outcome.err
    for note in ("--dp-budget 6 ended the training after 1 of 2 rounds: epsilon is 4.38", "simulates differential pr"):
        assert any(note in given for given in results["notes"])
        assert note in outcome.err
    assert run(*words, "--resume").code == 0
    assert len(read_rounds(tmp_path / "a")) == 1, "a run that its budget ended is finished"


def test_a_run_without_noise_says_nothing_of_privacy(finished: Path) -> None:
    assert "privacy" not in read_results(finished)
    assert all("epsilon" not in line for line in read_rounds(finished))
