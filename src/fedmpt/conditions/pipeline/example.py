"""An example of an answer, shown as an earlier turn of the conversation: small models need it to keep to the form.

It comes with ``--per-request 1``, which is for such models [ours]. SmolLM2-135M-Instruct answered 0 of 24 questions for
sentences in the wanted form, and 13 of 16 after an earlier turn; the same example within the question did not help. For
conditions it is about meals, and its names are refused as the model's own: a model may repeat what it is shown.
"""

from __future__ import annotations

from dataclasses import replace

from fedmpt.conditions.pipeline.options import Options
from fedmpt.conditions.record import Condition, Described
from fedmpt.llm.model import Message, Request

DESCRIBED = Described(
    ("key", "door"),
    (
        "A key hangs on a nail beside a door.",
        "Somebody tries an old key in the lock of a door.",
        "The key has broken off in the door of a shop.",
        "Two children hide a key under a door.",
    ),
)
"""For `fedmpt.conditions.pipeline.describe`."""
DESCRIBED_THOUGHT = "A key opens a door, or hangs beside it."
MEALS = (
    Described(("rice", "fish"), ("Raw fish lies on cold rice.", "A spicy stew of fish is eaten with rice.")),
    Described(("egg",), ("A fried egg is served for breakfast.", "A boiled egg is in a packed lunch.")),
)
"""For `fedmpt.conditions.pipeline.summarise`, with what is made of them."""
MEALS_THOUGHT = "Food is cooked in some way, and eaten at some meal."
MEALS_CONDITIONS = (
    Condition("way of cooking", "How the food was made.", ("raw", "stew", "fried", "boiled")),
    Condition("meal", "When it is eaten.", ("breakfast", "lunch")),
)
LOOKS = (
    "teapot",
    ("curved spout on one side", "lid with a small knob", "handle opposite the spout", "glazed round belly"),
)
"""For `fedmpt.conditions.pipeline.describe_classes`."""
LOOKS_THOUGHT = "One knows it by its spout, its lid and its handle."
NAMES = frozenset(condition.name for condition in MEALS_CONDITIONS)


def wants_example(options: Options) -> bool:
    """Whether the options are those for small models."""
    return options.per_request == 1


def after_example(request: Request, question: str, answer: str) -> Request:
    """The request with a question and its answer before its own; instructions stay first."""
    first, *rest = request.messages
    assert first.role == "system"
    turns = (Message("user", question), Message("assistant", answer))
    return replace(request, messages=(first, *turns, *rest))
