"""Data sets by name, and ``NAME:PATH,option=value`` as users write them; some take no path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fedmpt.data.datasets.coco import load_coco
from fedmpt.data.datasets.mlrsnet import load_mlrsnet
from fedmpt.data.datasets.multi_scene import load_multi_scene
from fedmpt.data.datasets.nus_wide import load_nus_wide
from fedmpt.data.datasets.scenes import load_scenes
from fedmpt.data.datasets.voc import load_voc
from fedmpt.data.own import load_clients, load_folder, load_site
from fedmpt.data.reading import check_choice, closest
from fedmpt.data.ties import TiesOptions, cut_ties
from fedmpt.files import default_cache
from fedmpt.types import ImageData, InputError

Loader = Callable[..., ImageData]
"""Takes its folder, if it has one, as ``path``, and its options by keyword, or as one dataclass ``options``.

One that makes files asks for ``cache``, and one that takes long for ``progress``; neither is an option to the user.
"""

DATASETS: Mapping[str, Loader] = {
    "folder": load_folder,
    "clients": load_clients,
    "voc": load_voc,
    "coco": load_coco,
    "nus-wide": load_nus_wide,
    "multi-scene": load_multi_scene,
    "mlrsnet": load_mlrsnet,
    "scenes": load_scenes,
}
"""Every data set there is. A new one is one file in `fedmpt.data.datasets` and one line here."""

SITE_DATASETS: Mapping[str, Loader] = {**DATASETS, "folder": load_site}
"""The same, as a site of a federation reads them."""

# The last `,key=value` words only: a comma within the path stays part of the path.
_OPTIONS = re.compile(r"(?:,[A-Za-z_][A-Za-z0-9_-]*=[^,]*)*$")


def load_data(spec: str, *, cache: Path | None = None, progress: bool = False, is_site: bool = False) -> ImageData:
    """The data set that ``spec`` names: ``voc:../VOCdevkit``, ``voc:../VOCdevkit,difficult=absent``, ``scenes``.

    Every data set also takes the options of `fedmpt.data.ties.TiesOptions`: ``voc:../VOCdevkit,ties=0.95``.

    Only the first colon separates, so ``voc:C:\\VOCdevkit`` works; ``~`` stands for the home folder. Data sets that
    are made are kept in ``cache``, the user's unless given; ``progress`` shows a bar meanwhile. With ``is_site`` the
    data are those of one site of a federation: of a folder, one image is enough and none need be for the test.

    Raises InputError if the name or an option is unknown, the path is missing, or the loader refuses.
    """
    datasets = SITE_DATASETS if is_site else DATASETS
    return parse_spec(spec, cache=cache, progress=progress, datasets=datasets)()


def parse_spec(
    spec: str,
    *,
    cache: Path | None = None,
    progress: bool = False,
    datasets: Mapping[str, Loader] = DATASETS,
) -> partial[ImageData]:
    """The call of a loader that `load_data` makes; its keyword ``path`` is the folder, where there is one.

    Raises InputError if the name or an option is unknown, or the path is missing.
    """
    name, _, rest = spec.partition(":")
    if name not in DATASETS:
        raise InputError(f"{spec!r}: unknown data set {name!r}{closest(name, DATASETS)}; {_expected()}")
    loader = datasets[name]
    types = get_type_hints(loader)
    given = {"cache": cache or default_cache(), "progress": progress}
    wanted: dict[str, Any] = {key: value for key, value in given.items() if key in types}
    words = rest.split(",") if rest else []
    if "path" in types:
        start = _OPTIONS.search(rest).start()  # type: ignore[union-attr]  # It matches the empty end at least.
        path, words = rest[:start], rest[start:].split(",")[1:]
        if not path:
            raise InputError(f"{spec!r}: the folder is missing; {_expected()}")
        wanted["path"] = Path(path).expanduser()
    own_options = types.get("options")
    known = (
        get_type_hints(own_options)
        if own_options
        else {key: kind for key, kind in types.items() if key not in (*wanted, "return")}
    )
    options = _options(spec, words, known | get_type_hints(TiesOptions))
    ties = _ties(spec, options)
    own = {key: value for key, value in options.items() if key in known}
    return partial(_load, loader, ties, **wanted, **({"options": own_options(**own)} if own_options else own))


def _load(loader: Loader, ties: TiesOptions | None, **options: Any) -> ImageData:
    data = loader(**options)
    return cut_ties(data, ties) if ties else data


def _ties(spec: str, options: Mapping[str, Any]) -> TiesOptions | None:
    found = {key: value for key, value in options.items() if key in get_type_hints(TiesOptions)}
    if found and "ties" not in found:
        raise InputError(f"{spec!r}: {next(iter(found))} needs ties, the share of images that is moved: ties=0.95")
    return TiesOptions(**found) if found else None


def _options(spec: str, words: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the options ``key=value``, of the types ``known``."""
    options: dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key not in known:
            listed = ", ".join(known) or "none"
            raise InputError(f"{spec!r}: unknown option {key!r}{closest(key, known)}; options are: {listed}")
        if key in options:
            raise InputError(f"{spec!r}: option {key!r} is given twice; keep one")
        options[key] = _value(f"{spec!r}: {key}", text, known[key])
    return options


def _value(what: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        check_choice(what, text, get_args(kind))
        return text
    if get_origin(kind) is tuple:
        return tuple(text.split("+"))
    if get_origin(kind) in (Union, UnionType):  # ``Path | None``: what is written is never None.
        kind = next(one for one in get_args(kind) if one is not NoneType)
    try:
        return Path(text).expanduser() if kind is Path else kind(text)
    except ValueError:
        raise InputError(f"{what} is {text!r}, expected a value of type {kind.__name__}") from None


def _expected() -> str:
    with_path = [name for name, loader in DATASETS.items() if "path" in get_type_hints(loader)]
    without = [name for name in DATASETS if name not in with_path]
    return f"expected NAME:PATH with NAME one of: {', '.join(with_path)}; or, without a path: {', '.join(without)}"
