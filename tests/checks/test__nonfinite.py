"""The sentence about where a NaN came in, whatever a file holds."""

from __future__ import annotations

import pytest

from torchwatch.checks._nonfinite import came_in
from torchwatch.history import History
from torchwatch.records import Step


def said(found: object, fingerprint: str | None = None) -> str | None:
    history = History()
    history.add(Step(step=1, first_nonfinite=found, fingerprint=fingerprint))
    return came_in(history, 1)


@pytest.mark.parametrize(
    ("where", "name", "sentence"),
    [
        ("input", "0", "first in the model's input 0, batch ab"),
        ("forward", "a.b", "first in a.b (forward), batch ab"),
        ("forward", "", "first in the model's own code (forward), batch ab"),
        ("loss", "", "first in the loss function (every output of the model was finite), batch ab"),
    ],
)
def test_every_place_has_its_sentence(where, name, sentence) -> None:
    assert said({"where": where, "name": name}, "ab") == sentence


@pytest.mark.parametrize("found", [None, {}, {"where": 3}, {"where": "elsewhere"}, ["forward"], "forward"])
def test_what_cannot_be_read_says_nothing(found) -> None:
    assert said(found) is None
