"""A site's certificate that ends while the site takes part."""

from __future__ import annotations

from pathlib import Path

import pytest
from expired import let_expire
from flare_bed import CLIENT, Bed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ["its client starts again", "its line breaks"])
def test_the_site_ends_with_a_word_of_it(tmp_path: Path, fault: str) -> None:
    with Bed(tmp_path / "f", sites=("a",)) as bed:
        joined = bed.join("a")
        bed.all_there()
        root_key = bed.folder / "coordinator" / "authority" / "rootCA.key"
        let_expire(bed.kit("a") / "startup" / "client.crt", root_key=root_key)
        if fault == "its client starts again":
            bed.kill("a", CLIENT)
        else:
            bed.lines["a"].drop()
        assert joined.wait(120) != 0
        assert "client.crt ended on " in bed.said("a")
        assert "ask for a new one with fedmpt federation request" in bed.said("a")
