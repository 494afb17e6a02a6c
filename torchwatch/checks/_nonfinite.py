"""Where the first NaN or infinity of a step appeared, in words; for all checks that report one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwatch.history import History

_PLACES = {
    "input": "in the model's input {}",
    "forward": "in {} (forward)",
    "loss": "in the loss function (every output of the model was finite)",
    "backward": "in the gradient of {} (backward)",
    "optimizer": "in {} (the optimizer's step)",
    "parameter": "in {}, which was not finite before the step",
}


def came_in(history: History, step: int) -> str | None:
    """Layer, input or parameter, and the batch: "first in … (forward), batch …"; None where not known."""
    found = history.value_at("first_nonfinite", step)
    place = _PLACES.get(str(found.get("where"))) if isinstance(found, Mapping) else None
    if place is None:
        return None
    name = str(found.get("name", "")) or "the model's own code"
    batch = history.value_at("fingerprint", step)
    return f"first {place.format(name)}{f', batch {batch}' if isinstance(batch, str) else ''}"


def titled(title: str, place: str | None) -> str:
    """The title of a finding with the place, where that is known."""
    return title if place is None else f"{title}, {place}"


def not_watched(step: int) -> str:
    """That it is not known, as a sentence."""
    return f"Where it came in was not watched in step {step}."
