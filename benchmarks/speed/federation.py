"""What a federation between processes costs against the plain loop: seconds, bytes and memory, for several sites.

Each site has pictures of `scenes` in a folder of its own. The same federation is trained in one process and by sites
on this machine, by the real commands; both end with the same bytes, which is checked. All traffic of the sites goes
through a relay that counts it. Run it on a quiet machine.

    python benchmarks/speed/federation.py --sites 3 10 --out benchmarks/results/speed_federation.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from fedmpt.data import load_data
from fedmpt.files import read_json, write_json

FEDMPT = [sys.executable, "-c", "from fedmpt.cli.main import main; main()"]
IMAGES = 24
"""Of a site: as many for training as take a moment, so that the way there and back shows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--methods", nargs="+", default=["fedmpt", "promptfl"])
    parser.add_argument("--wire", default="float32", choices=["float32", "float16"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for num in options.sites:
        for method in options.methods:
            with tempfile.TemporaryDirectory() as folder:
                row = compared(Path(folder), num, method, rounds=options.rounds, wire=options.wire)
            print(json.dumps(row), flush=True)
            rows.append(row)
    write_json(options.out, {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "rows": rows})


def compared(root: Path, num: int, method: str, *, rounds: int, wire: str) -> dict[str, Any]:
    """One row: the same training by both."""
    sites = [f"site-{number:02d}" for number in range(num)]
    write_sites(root / "data", sites)
    common = ["--method", method, "--backbone", "scenes-clip", "--rounds", str(rounds), "--eval-every", str(rounds)]
    common += ["--wire", wire]
    run("train", "--data", f"clients:{root / 'data'}", "--scoring", "summed", *common, "--out", str(root / "one"))
    server, relay = free_port(), Relay()
    fed = root / "fed"
    address = f"localhost:{server}"
    run("federation", "init", str(fed), "--sites", ",".join(sites), "--address", address, "--trial", *common)
    relay.listen(server)
    for kit in (fed / "sites").iterdir():  # Sites go through the relay; all else is as it was.
        start = kit / "startup" / "fed_client.json"
        start.write_text(start.read_text().replace(address, f"localhost:{relay.port}"))
    began = time.time()
    with joined(fed, sites, root / "data"):
        memory = Watch(str(root), fed / "coordinator" / "run" / "rounds.jsonl", relay)
        run("federation", "start", str(fed / "coordinator"), watch=memory)
    plain, federated = (rounds_of(folder) for folder in (root / "one", fed / "coordinator" / "run"))
    states = [
        next((folder / "checkpoint").glob("state-*")).read_bytes() for folder in (root / "one", fed / "coordinator/run")
    ]
    assert states[0] == states[1], "the federation ended with other bytes than one process"
    parameters = read_json(root / "one" / "results.json")["params"]["sent_bytes_per_round"]
    events = [json.loads(line) for line in (fed / "coordinator/events.jsonl").read_text().splitlines()]
    in_rounds = sum(federated)
    return {
        "sites": num,
        "method": method,
        "wire": wire,
        "parameters_bytes": parameters,
        "plain_seconds_a_round": round(statistics.median(plain), 3),
        "seconds_a_round": round(statistics.median(federated[1:]), 3),
        "first_round_seconds": round(federated[0], 3),
        "seconds_until_all_take_part": round(max(e["time"] for e in events if e.get("state") == "here") - began, 1),
        "bytes_up_a_round_and_site": memory.per_round("up", rounds, num),
        "bytes_down_a_round_and_site": memory.per_round("down", rounds, num),
        "bytes_in_all_and_site": round(sum(map(sum, relay.passed.values())) / num),
        "memory_mb": memory.summary(),
        "seconds_of_rounds": round(in_rounds, 1),
    }


def write_sites(root: Path, sites: list[str]) -> None:
    """A folder a site, with a table of labels."""
    data = load_data("scenes:num_train=1000,num_test=100")
    for number, site in enumerate(sites):
        folder = root / site
        folder.mkdir(parents=True)
        lines = ["image,labels,split"]
        for place in range(IMAGES):
            row = number * IMAGES + place
            shown = [
                name for name, label in zip(data.class_names, data.train.labels[row].tolist(), strict=True) if label
            ]
            shutil.copy(data.train.files[row], folder / f"{place}.png")
            lines.append(f"{place}.png,{'|'.join(shown)},{'test' if place % 6 == 5 else 'train'}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def run(*words: str, watch: Watch | None = None) -> None:
    process = subprocess.Popen([*FEDMPT, *words, *(["--quiet"] if words[1:2] != ("init",) else [])])
    while process.poll() is None:
        time.sleep(0.1)
        if watch is not None:
            watch.look()
    if process.returncode:
        raise SystemExit(f"fedmpt {' '.join(words)} ended with {process.returncode}")


@contextmanager
def joined(fed: Path, sites: list[str], data: Path) -> Iterator[None]:
    """All sites, each by the command that its engineer would give."""
    started = [
        subprocess.Popen(
            [*FEDMPT, "federation", "join", str(fed / "sites" / site), "--data", f"folder:{data / site}", "--quiet"]
        )
        for site in sites
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def rounds_of(run: Path) -> list[float]:
    return [json.loads(line)["seconds"] for line in (run / "rounds.jsonl").read_text().splitlines()]


class Relay:
    """Between sites and server: passes bytes on, and notes when how many have passed."""

    def __init__(self) -> None:
        self.passed: dict[str, list[int]] = {"up": [], "down": []}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def listen(self, to: int) -> None:
        threading.Thread(target=self._accept, args=(to,), daemon=True).start()

    def _accept(self, to: int) -> None:
        while True:
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", to))
            except OSError:
                near.close()
                continue
            for source, target, way in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._carry, args=(source, target, way), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                self.passed[way].append(len(chunk))
                target.sendall(chunk)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class Watch:
    """The largest share of memory (PSS) of each kind of process of a federation in ``folder``, in MB, and the bytes
    that have passed when a round is first seen in ``log``."""

    KINDS: ClassVar[dict[str, str]] = {
        "federation.worker": "worker of a site",
        "client_train": "NVFlare's client",
        "client.worker_process": "executor's job process",
        "server_train": "NVFlare's server",
        "runner_process": "controller's job process",
        "federation\0start": "driver",
        "federation\0join": "supervisor of a site",
    }

    def __init__(self, folder: str, log: Path, relay: Relay) -> None:
        self._folder, self._log, self._relay = folder, log, relay
        self._most: dict[str, float] = {}
        self._passed: dict[int, dict[str, int]] = {}

    def per_round(self, way: str, rounds: int, sites: int) -> int:
        """Bytes of a round and a site, between the second round and the last but one: no start, no scores."""
        first, last = self._passed[2], self._passed[rounds - 1]
        return round((last[way] - first[way]) / (rounds - 3) / sites)

    def look(self) -> None:
        if self._log.exists() and (done := self._log.read_text().count("\n")) not in self._passed:
            self._passed[done] = {way: sum(sizes) for way, sizes in self._relay.passed.items()}
        for process in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (process / "cmdline").read_text()
                if self._folder not in words:
                    continue
                kind = next((kind for part, kind in self.KINDS.items() if part in words), None)
                if kind is None:
                    continue
                lines = (process / "smaps_rollup").read_text().splitlines()
                pss = next(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
                self._most[kind] = max(self._most.get(kind, 0.0), pss)

    def summary(self) -> dict[str, int]:
        return {kind: round(value) for kind, value in sorted(self._most.items())}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
