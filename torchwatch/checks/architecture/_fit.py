"""Whether the checks of a kind of model have anything to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.check import NotReady
from torchwatch.history.kinds import called, kinds_seen

if TYPE_CHECKING:
    from torchwatch.history import History

_WORDS = {"cnn": "convolutions", "transformer": "attention", "rnn": "recurrent layers"}


def unfit(history: History, kind: str) -> NotReady | None:
    """Why the checks of a kind have nothing to say; None for a model of that kind whose forward was seen."""
    layout = history.layout
    if layout is None:
        return NotReady("no layout yet")
    if kind not in kinds_seen(history, layout):
        return NotReady(f"the model has no {_WORDS[kind]}")
    if not history.of_layout("called", lambda: called(layout)):
        return NotReady("no forward pass was seen")
    return None
