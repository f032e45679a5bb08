"""``fedmpt federation start`` and what ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from federation_bed import plan_of
from flare_processes import free_port

from fedmpt.files import write_json
from fedmpt.runs.config import preset

STARTED = """
import os, signal, sys
from fedmpt.federated.flare import authority, link

class Line:
    def __init__(self, folder, *, note):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *words):
        print("the server is stopped", flush=True)

    def connected(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

authority.assemble_server = lambda folder: None
link.Link = Line
from fedmpt.cli.main import main
main(["federation", "start", sys.argv[1], "--quiet"])
"""
"""Without NVFlare; SIGTERM comes when the sites are looked for."""


def test_sigterm_ends_it_with_a_word_in_the_status(tiny_clip_folder: Path, tmp_path: Path) -> None:
    plan = plan_of(replace(preset("default", "promptfl", "sites"), backbone=str(tiny_clip_folder)))
    write_json(tmp_path / "federation.json", replace(plan, address=f"localhost:{free_port()}").to_json())
    ended = subprocess.run([sys.executable, "-c", STARTED, str(tmp_path)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGTERM, "the server is stopped\n", "")
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["note"]) == ("stopped", "by SIGTERM")
