"""A job of ours: three JSON files, and no code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedmpt.files import write_json

CONTROLLER = "fedmpt.federated.flare.controller.BridgeController"
EXECUTOR = "fedmpt.federated.flare.executor.BridgeExecutor"
NAME = "fedmpt"
SIGN_OF_LIFE = 3.0
"""Seconds between two signs of life of a site that works."""
START = 120.0
"""Seconds that processes of a job wait for each other at its start. NVFlare's own are 10 in places."""
TRANSFER = 600.0
"""Seconds for a message to be sent: NVFlare's own 5 are too few where the line is slow."""


def write_job(folder: Path, sites: Sequence[str], *, max_bytes: int) -> Path:
    """The job for these sites in ``folder``, whose absolute path NVFlare needs and is returned."""
    config = folder.absolute() / "app" / "config"
    config.mkdir(parents=True, exist_ok=True)
    meta = {
        "name": NAME,
        "min_clients": 1,
        "mandatory_clients": [],
        "resource_spec": {},
        "deploy_map": {"app": ["server", *sites]},
    }
    server = {
        "format_version": 2,
        "server": {"heart_beat_timeout": START, "task_request_interval": 0.5},
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [],
        "workflows": [{"id": "bridge", "path": CONTROLLER, "args": {}}],
        "end_run_readiness_timeout": 1.0,
        "min_download_timeout": TRANSFER,
    }
    client = {
        "format_version": 2,
        "executors": [{"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {"max_bytes": max_bytes}}}],
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [],
        "runner_sync_timeout": 10.0,
        "max_runner_sync_timeout": START,
        "task_check_timeout": 30.0,
        "task_check_interval": 1.0,
        "job_heartbeat_interval": SIGN_OF_LIFE,
        "get_task_timeout": TRANSFER,
        "submit_task_result_timeout": TRANSFER,
        "end_run_readiness_timeout": 1.0,
    }
    write_json(folder / "meta.json", meta)
    write_json(config / "config_fed_server.json", server)
    write_json(config / "config_fed_client.json", client)
    return folder.absolute()
