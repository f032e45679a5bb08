"""What a coordinator and its sites agree on before they train: who takes part, and the config of the run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedmpt.federated.rounds import cohort_size
from fedmpt.runs.config import RunConfig
from fedmpt.runs.federation.agreement import MAX_CLASSES
from fedmpt.types import InputError, check_options

FORMAT = 1
SITE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
"""What NVFlare takes for a site and a file system for a folder, on every machine."""
RESERVED = frozenset(("server", "coordinator", "operator"))


@dataclass(frozen=True)
class Rules:
    """When a round counts, and how long anybody waits."""

    min_sites: int = 2
    """Sites whose updates a round needs; with fewer it is asked again. With 1, the coordinator sees one site's update
    by itself."""
    deadline: float = 600.0
    """Seconds that a round waits for a site's update. A later one is left out of this round."""
    gather: float = 300.0
    """Seconds that the start waits for all sites. Then it begins with those that are there, if they are enough."""
    patience: float = 86400.0
    """Seconds without enough sites after which the coordinator ends. The same command goes on later."""

    def check(self, num_sites: int) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        check_options(self, "(0, inf)", "min_sites", "deadline", "patience")
        check_options(self, "[0, inf)", "gather")
        if self.min_sites > num_sites:
            raise InputError(f"--min-sites {self.min_sites} is more than the {num_sites} sites there are; give fewer")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A federation before anything has run.

    ``sites`` are sorted: a client's number is its site's place. ``address`` is ``HOST:PORT`` of the coordinator.
    ``class_names`` is None where the classes are all that any site's labels name. ``run.data`` names no data: each
    site has its own, unless ``is_simulation``, where every node reads the same data set and trains some of its clients.
    """

    name: str
    sites: tuple[str, ...]
    address: str
    run: RunConfig
    class_names: tuple[str, ...] | None = None
    rules: Rules = field(default_factory=Rules)
    is_simulation: bool = False

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def check(self) -> None:
        """Raises InputError for names that cannot be, an address without a port, or rules that do not fit."""
        check_name("--name", self.name)
        for site in self.sites:
            check_name("--sites", site)
            if site in RESERVED:
                raise InputError(f"--sites: {site!r} is a name of the coordinator's own; take another")
        if not self.sites:
            raise InputError("--sites names no site; give at least one, for example --sites clinic-a,clinic-b")
        if list(self.sites) != sorted(set(self.sites)):
            raise InputError(f"--sites {','.join(self.sites)}: a name is given twice, or they are not sorted")
        if not re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]{1,5}", self.address) or not 0 < self.port < 65536:
            raise InputError(f"--address {self.address!r} is no HOST:PORT, such as fl.example.org:8102")
        if len(self.class_names or ()) > MAX_CLASSES:
            raise InputError(f"--classes: a federation has at most {MAX_CLASSES} classes; the file names more")
        self.rules.check(len(self.sites))
        self.run.check()
        if not self.is_simulation:
            self._check_run()

    def _check_run(self) -> None:
        """Raises InputError for options that mean nothing where each site has its own images."""
        run = self.run
        given = {
            "setting": run.setting is not None,
            "t": run.t is not None,
            "clients": run.clients is not None,
            "alpha": run.alpha is not None,
            "by": run.by is not None,
            "partition": run.partition is not None,
            "partial-labels": run.partial_labels is not None,
            "validation": run.validation != 0,
        }
        if idle := [flag for flag, is_given in given.items() if is_given]:
            raise InputError(f"--{idle[0]} divides or changes one data set; in a federation each site has its own")
        cohort = cohort_size(len(self.sites), run.federation.participation)
        if cohort < self.rules.min_sites:
            raise InputError(
                f"--participation {run.federation.participation} draws {cohort} of {len(self.sites)} sites in a round, "
                f"and --min-sites asks for {self.rules.min_sites}; give a larger --participation"
            )

        try:
            run.aggregation.check_cohort(self.rules.min_sites)
        except InputError as error:
            raise InputError(f"a round counts with --min-sites {self.rules.min_sites}, and {error}") from error

    def to_json(self) -> dict[str, Any]:
        words = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        listed = None if self.class_names is None else list(self.class_names)
        own = {"run": self.run.to_json(), "rules": dataclasses.asdict(self.rules), "sites": list(self.sites)}
        return {"format": FORMAT, **words, **own, "class_names": listed}

    @classmethod
    def from_json(cls, words: Mapping[str, Any], *, source: str) -> Plan:
        """The inverse of `to_json`. Raises InputError naming ``source`` if that is no plan, or of a newer format."""
        try:
            if words["format"] != FORMAT:
                raise InputError(f"{source}: format {words['format']}, this version reads {FORMAT}; update fedmpt")
            names = words["class_names"]
            plan = cls(
                name=str(words["name"]),
                sites=tuple(map(str, words["sites"])),
                address=str(words["address"]),
                run=RunConfig.from_json(words["run"], source=source),
                class_names=None if names is None else tuple(map(str, names)),
                rules=Rules(int(words["rules"]["min_sites"]), *(float(words["rules"][key]) for key in RULES)),
                is_simulation=bool(words["is_simulation"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{source}: not the plan of a federation ({error!r})") from error
        plan.check()
        return plan


RULES = ("deadline", "gather", "patience")


def check_name(flag: str, name: str) -> None:
    """Raises InputError if ``name`` cannot be that of a federation or a site."""
    if not SITE_NAME.fullmatch(name):
        raise InputError(
            f"{flag}: {name!r} is no name; use lower-case letters, digits and hyphens, up to 48, such as clinic-a"
        )
