"""What is ablated of which input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchwatch.errors import UsageError
from torchwatch.examinations._ablation_elements import Part, parts_of
from torchwatch.examinations.case import Case, Options
from torchwatch.results import AutopsyInputs


class Sum(nn.Module):
    def forward(self, x):
        return x.float().flatten(1).sum(1, keepdim=True)


def parts(*shape: int, axes=None, integer=False, options=None, **known) -> list[Part]:
    x = torch.ones(3, *shape, dtype=torch.int64 if integer else torch.float32)
    inputs = AutopsyInputs(Sum(), (x, torch.zeros(3, 1)), axes=axes, **known)
    return parts_of(Case(inputs, options))


def told(found: list[Part]) -> list[tuple[str, str, int]]:
    return [(p.axis, p.kind, len(p.elements)) for p in found]


def test_series_images_vectors_tokens():
    assert told(parts(129, 200)) == [("channel", "element", 129), ("time", "window", 10)]
    assert told(parts(3, 32, 30)) == [("channel", "element", 3), ("height×width", "patch", 64)]
    assert told(parts(1, 4, 30)) == [("height×width", "patch", 32)]
    assert told(parts(17)) == [("feature", "element", 17)]
    assert told(parts(50, integer=True)) == [("token", "window", 5)]
    assert told(parts(40, 6, axes=("time", "channel"))) == [("channel", "element", 6), ("time", "window", 5)]
    assert told(parts(2, 8, 16, 16)) == [
        ("channel", "element", 2), ("height×width", "patch", 64), ("depth", "window", 8),
    ]  # fmt: skip
    assert told(parts(2, 10, 40, axes=("channel", "frequency", "time"))) == [
        ("channel", "element", 2), ("frequency", "window", 5), ("time", "window", 5),
    ]  # fmt: skip


def test_an_axis_of_one_is_left_out_unless_it_is_all_there_is():
    assert told(parts(1, 200)) == [("time", "window", 10)]
    assert told(parts(1)) == [("feature", "element", 1)]


def test_windows_are_narrower_where_five_would_not_fit():
    (channels, windows) = parts(2, 30)
    assert channels.kind == "element"
    assert windows.windows == ((0, 6), (6, 12), (12, 18), (18, 24), (24, 30))
    assert [e.name for e in windows.elements][:2] == ["0–5", "6–11"]
    assert parts(2, 205)[1].windows[-1] == (200, 205)
    assert len(parts(2, 200, options=Options(window=10))[1].elements) == 20
    assert [e.name for e in parts(2, 3)[1].elements] == ["0", "1", "2"]


def test_names_are_those_of_the_user():
    named = parts(2, 200, channel_names=["Fz", "Cz"], sample_rate=100.0)
    assert [e.name for e in named[0].elements] == ["Fz", "Cz"]
    assert [e.name for e in named[1].elements][:2] == ["0–0.2 s", "0.2–0.4 s"]
    assert named[1].rate == 100.0


def test_thousands_of_features_are_ablated_in_windows():
    (part,) = parts(20_000)
    assert part.kind == "window"
    assert 400 <= len(part.elements) <= 512
    assert part.windows[-1][1] == 20_000


@given(st.integers(1, 40), st.integers(1, 40))
def test_patches_cover_each_pixel_once(height, width):
    seen = torch.zeros(2, height, width)
    found = [p for p in parts(2, height, width) if p.kind == "patch"]
    for element in found[0].elements if found else ():
        seen[element.pieces[0]] += 1
    assert (seen == bool(found)).all()
    assert found or height * width == 1


def test_groups_by_name_and_by_number():
    groups = {"front": ["Fz", 2], "back": [1]}
    options = Options(channel_groups=groups)
    found = parts(3, 50, channel_names=["Fz", "Oz", "Pz"], options=options)
    assert told(found)[1] == ("channel", "group", 2)
    assert [p[0] for p in found[1].elements[0].pieces] == [slice(0, 1), slice(2, 3)]
    for wrong, words in (({"a": ["Cz"]}, "'Cz' of 'a' is none of the 3"), ({"a": []}, "names no channels")):
        with pytest.raises(UsageError, match=words):
            parts(3, 50, options=Options(channel_groups=wrong))
    with pytest.raises(UsageError, match="needs a channel or feature axis"):
        parts(50, integer=True, options=Options(channel_groups=groups))
