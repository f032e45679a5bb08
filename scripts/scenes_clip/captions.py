"""What is said about a scene: captions of objects and factors, and prompts for single concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmpt.data.datasets.scenes import CLASS_NAMES, Scene
from fedmpt.data.datasets.scenes.draws import Draws
from fedmpt.data.datasets.scenes.scene import BACKGROUNDS, DISTRACTORS

PLACES: Mapping[str, Sequence[str]] = {
    "indoor": ("indoors", "in a room", "at home", "in a living room"),
    "street": ("on a street", "in the city", "on the road"),
    "nature": ("in nature", "in a meadow", "on the grass", "in the countryside"),
    "water": ("on the water", "at the sea", "on a lake"),
    "night": ("at night", "under the stars", "in the dark"),
    "snow": ("in the snow", "in winter", "in snowy mountains"),
}
LIGHT: Mapping[str, Sequence[str]] = {
    "daylight": ("in daylight", "in normal light"),
    "bright": ("in bright light", "in glaring sun"),
    "dim": ("in dim light", "in faint light"),
    "warm": ("in warm light", "in the evening sun"),
    "cool": ("in cool light", "in blue light"),
}
WEATHER: Mapping[str, Sequence[str]] = {
    "clear": ("in clear weather",),
    "rain": ("in the rain", "on a rainy day"),
    "fog": ("in fog", "on a foggy day"),
    "snowfall": ("while it snows", "in falling snow"),
}
LAYOUT: Mapping[str, Sequence[str]] = {
    "single": ("alone",),
    "row": ("in a row", "side by side"),
    "column": ("above each other", "in a column"),
    "clustered": ("close together", "in a heap"),
    "scattered": ("scattered", "spread about"),
    "corners": ("in the corners", "far apart"),
}
POSE: Mapping[str, Sequence[str]] = {
    "upright": ("upright", "standing"),
    "tilted": ("tilted", "leaning"),
    "tumbled": ("upside down", "lying on the side"),
}
SCALE: Mapping[str, Sequence[str]] = {
    "small": ("small", "tiny"),
    "medium": ("medium sized",),
    "large": ("large", "big"),
}
# How each factor is named where a caption lists conditions with their values; the paper's own names first.
CONDITIONS: Mapping[str, Sequence[str]] = {
    "layout": ("spatial layout", "arrangement"),
    "pose": ("object pose", "orientation"),
    "background": ("background", "scene", "place"),
    "lighting": ("lighting and weather", "lighting", "light"),
    "weather": ("lighting and weather", "weather"),
    "scale": ("object scale", "size"),
}
FACTORS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "layout": LAYOUT,
    "pose": POSE,
    "background": PLACES,
    "lighting": LIGHT,
    "weather": WEATHER,
    "scale": SCALE,
}
SYNONYMS: Mapping[str, Sequence[str]] = {
    "airplane": ("plane", "aeroplane", "aircraft"),
    "bicycle": ("bike",),
    "boat": ("sailing boat",),
    "clock": ("alarm clock",),
    "cup": ("mug", "cup of tea"),
    "laptop": ("computer", "notebook computer"),
    "potted plant": ("pottedplant", "plant in a pot"),
    "sofa": ("couch",),
    "television": ("tv", "tv monitor"),
}
CONCEPTS = (*CLASS_NAMES, *DISTRACTORS, *BACKGROUNDS)
"""What a patch can show: a class, a distractor or a background."""

LEADS = (
    "",
    "a",
    "the",
    "a photo of a",
    "a picture of a",
    "an image of a",
    "a drawing of a",
    "there is a",
    "a scene with a",
)

_FACTOR_CHANCE = 0.4
_SYNONYM_CHANCE = 0.15


def name_of(concept: str, draws: Draws) -> str:
    """A class or object by its name, seldom by another word for it."""
    others = SYNONYMS.get(concept, ())
    return draws.pick(others) if others and draws.chance(_SYNONYM_CHANCE) else concept


def caption(scene: Scene, draws: Draws) -> str:
    """A sentence that names most objects of a scene and some of its factors."""
    names = {item.name for item in scene.objects if item.is_labelled or draws.chance(0.5)}
    shown = draws.shuffled(sorted(names))
    if len(shown) > 1 and draws.chance(0.3):
        shown = shown[: draws.between(1, len(shown))]
    objects = _listed([_with_article(name_of(name, draws)) for name in shown])
    told = [factor for factor in draws.shuffled(list(FACTORS)) if draws.chance(_FACTOR_CHANCE)]
    values = {factor: draws.pick(FACTORS[factor][getattr(scene, factor)]) for factor in told}
    if draws.chance(0.3):
        conditions = [f"{draws.pick(CONDITIONS[factor])} : {value}" for factor, value in values.items()]
        return " , ".join([*conditions, objects]) + "."
    lead = draws.pick(("", "a photo of", "a picture of", "a drawing of", "there is", "we see"))
    return " ".join(word for word in (lead, objects, *values.values()) if word) + "."


def concept_words(concept: str, draws: Draws) -> tuple[str, str]:
    """What comes before a concept's name in a prompt (which may be nothing), and the name."""
    if concept in BACKGROUNDS:
        return "", draws.pick((concept, *PLACES[concept]))
    condition = draws.pick(CONDITIONS[draws.pick(list(CONDITIONS))])
    lead = draws.pick(LEADS)
    kind = draws.below(3)
    before = (lead, f"{condition} {lead}", f"{condition} {draws.pick(_ANY_VALUE)} , {lead}")[kind]
    return before.strip(), name_of(concept, draws)


def corpus() -> list[str]:
    """Every word that captions and prompts can be made of."""
    named = [*CONCEPTS, *(word for words in SYNONYMS.values() for word in words), *LEADS]
    values = [value for table in FACTORS.values() for words in table.values() for value in words]
    return [*named, *values, *(name for names in CONDITIONS.values() for name in names)]


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{' , '.join(words[:-1])} and {words[-1]}"


_ANY_VALUE = [value for table in FACTORS.values() for words in table.values() for value in words]
