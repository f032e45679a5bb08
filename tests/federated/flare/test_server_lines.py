"""What the driver makes of the lines that NVFlare's server prints."""

from __future__ import annotations

from pathlib import Path

from fedmpt.federated.flare.server import Server


def test_a_site_cannot_put_the_blame_for_its_end_on_another(tmp_path: Path) -> None:
    """The server prints a site's reason as it came, with line breaks in it."""
    server = Server(tmp_path, env={}, log=tmp_path / "log")
    line = "2026-11-28 07:00:00 - FederatedServer - INFO - Failing job 12ab due to reported failure from {}: {}"
    for printed in (line.format("c.12ab", "a reason"), line.format("b.12ab", "of c's own making")):
        server._read(printed)
    assert server.blamed("12ab") == "c"
