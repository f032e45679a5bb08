"""The part of NVFlare's kits that we write ourselves: who may do what, which classes run, where files go.

NVFlare's stock files let an operator send code and list folders of every site. Ours let it submit jobs made of classes
that are installed, and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmpt.federated.flare.job import CONTROLLER, EXECUTOR
from fedmpt.files import write_json

OPERATOR = "operator@fedmpt.local"
"""The one user of NVFlare's that there is: our driver."""
GATE = "fedmpt.federated.flare.gate.Gate"

RIGHTS = (
    "submit_job",
    "clone_job",
    "manage_job",
    "download_job",
    "view",
    "operate",
    "shell_commands",
    "byoc",
    "server-predeployed-flwr",
)
"""All that NVFlare knows. ``byoc`` is code that comes with a job."""
NOTHING = dict.fromkeys(RIGHTS, "none")
OF_OPERATOR = {**NOTHING, "submit_job": "any", "manage_job": "n:submitter", "view": "any"}
"""``n:submitter``: of jobs that it submitted itself."""
AUTHORIZATION = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": NOTHING,
        "org_admin": NOTHING,
        "lead": OF_OPERATOR,
        "member": NOTHING,
    },
}

SILENCE = 30.0
"""Seconds without a sign of life after which the server takes a site for gone. NVFlare's own 600 are too long."""
Components = Mapping[str, tuple[str, Mapping[str, Any]]]
"""Class and arguments by the name that NVFlare looks for."""
LOG_BYTES, LOG_FILES = 5 * 2**20, 2


def write_site_local(folder: Path) -> None:
    """``local/`` of a site's kit. It replaces what is there: stock files, or ours of an earlier version."""
    components: Components = {
        "resource_manager": (
            "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
            {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0},
        ),
        "resource_consumer": ("nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer", {}),
        "process_launcher": ("nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher", {}),
    }
    resources = {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [EXECUTOR],
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": _listed(components),
    }
    _write(folder / "local", resources)


def write_server_local(folder: Path, *, num_sites: int) -> None:
    """``local/`` of the server's kit. What NVFlare stores goes into the kit, and not to /tmp."""
    # The paths must be absolute.
    jobs, kept = (str(folder.absolute() / name) for name in ("jobs", "snapshots"))
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    components: Components = {
        "job_scheduler": ("nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler", {"max_jobs": 4}),
        "job_manager": (
            "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
            {"uri_root": jobs, "job_store_id": "job_store"},
        ),
        "job_store": (storage, {}),
        "process_launcher": ("nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher", {}),
        "gate": (GATE, {}),
    }
    snapshots = {"path": storage, "args": {"root_dir": kept, "uri_root": "/"}}
    resources = {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [CONTROLLER],
        "allow_log_streaming": False,
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": num_sites,
                "heart_beat_timeout": SILENCE,
                "admin_timeout": 10.0,
            }
        ],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {"uri_root": "/", "storage": snapshots},
        },
        "components": _listed(components),
    }
    _write(folder / "local", resources)


def write_operator_local(folder: Path) -> None:
    """``local/`` of the operator's kit, which our driver uses, and nobody types commands into."""
    admin = {"idle_timeout": 0, "login_timeout": 30.0, "authenticate_msg_timeout": 10.0, "with_debug": False}
    _make_local(folder / "local", {"format_version": 1, "admin": admin})


def keep_startup(kit: Path, folder: Path) -> None:
    """Move what NVFlare's processes read of a new kit to ``folder/startup``: settings, certificates, the key.

    The scripts are left out. They would start processes that nothing of ours looks after.
    """
    fresh, old = folder / ".startup", folder / "startup"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    for path in (kit / "startup").iterdir():
        if path.suffix in (".json", ".crt", ".key", ".pem"):
            path.rename(fresh / path.name)
    shutil.rmtree(old, ignore_errors=True)
    fresh.rename(old)


def _listed(components: Components) -> list[dict[str, Any]]:
    return [{"id": name, "path": path, "args": dict(words)} for name, (path, words) in components.items()]


def _write(local: Path, resources: Mapping[str, Any]) -> None:
    _make_local(local, resources)
    write_json(local / "authorization.json", AUTHORIZATION)
    write_json(local / "log_config.json", _logging())


def _make_local(local: Path, resources: Mapping[str, Any]) -> None:
    local.mkdir(mode=0o700, exist_ok=True)
    write_json(local / "resources.json", resources)


def _logging() -> dict[str, Any]:
    """The output, and two small files: everything, and errors alone. NVFlare's own five may grow to 1 GB."""
    plain = {
        "()": "nvflare.fuel.utils.log_utils.BaseFormatter",
        "fmt": "%(asctime)s - %(name)s - %(levelname)s - %(message)s",
    }
    handlers = {
        "consoleHandler": {
            "class": "logging.StreamHandler",
            "formatter": "plain",
            "level": "INFO",
            "stream": "ext://sys.stdout",
        },
        "logFileHandler": _log_file("log.txt", "INFO"),
        "errorFileHandler": _log_file("error_log.txt", "ERROR"),
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": plain},
        "handlers": handlers,
        "loggers": {"root": {"level": "INFO", "handlers": list(handlers)}},
    }


def _log_file(name: str, level: str) -> dict[str, Any]:
    return {
        "class": "logging.handlers.RotatingFileHandler",
        "formatter": "plain",
        "level": level,
        "filename": name,
        "maxBytes": LOG_BYTES,
        "backupCount": LOG_FILES,
    }
