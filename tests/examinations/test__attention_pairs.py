from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.errors import UsageError
from torchwatch.examinations._attention_calls import Call
from torchwatch.examinations._attention_pairs import agreement, alignment, held, named, recognised


def call(weights, valid=None, name="cross.a_to_b", ends=None):
    return Call(name, "softmax", torch.as_tensor(weights), valid, True, ends)


def aligned(there, back, valid_there=None, valid_back=None):
    return alignment(held(call(there, valid_there)), held(call(back, valid_back)))


def test_alignment_by_hand():
    """Of a 2 × 2 map (1, 0; 0, 1) with its own transpose, with its opposite, with something constant."""
    there = torch.eye(2)[None, None]
    assert aligned(there, there) == pytest.approx([1.0])
    assert aligned(there, 1 - there) == pytest.approx([-1.0])
    assert np.isnan(aligned(there, torch.full((1, 1, 2, 2), 0.5))).all()


def test_alignment_is_the_correlation_with_the_transpose_of_the_means_over_heads():
    there, back = torch.rand(3, 2, 4, 6).softmax(-1), torch.rand(3, 5, 6, 4).softmax(-1)
    found = aligned(there, back)
    for i in range(3):
        a, b = there[i].mean(0).ravel().numpy(), back[i].mean(0).T.ravel().numpy()
        assert found[i] == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_padding_of_either_stream_is_left_out():
    there, back = torch.rand(1, 1, 3, 4).softmax(-1), torch.rand(1, 1, 4, 3).softmax(-1)
    keys_b = torch.tensor([True, True, True, False]).expand(1, 1, 3, 4)
    keys_a = torch.tensor([True, True, False]).expand(1, 1, 4, 3)
    found = aligned(there, back, keys_b, keys_a)
    a, b = there[0, 0, :2, :3].ravel().numpy(), back[0, 0, :3, :2].T.ravel().numpy()
    assert found[0] == pytest.approx(np.corrcoef(a, b)[0, 1])


@given(st.integers(2, 6), st.integers(2, 6), st.floats(0.01, 20), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_alignment_lies_between_minus_one_and_one_and_is_symmetric(a, b, sharpness, seed):
    generator = torch.Generator().manual_seed(seed)
    there = (torch.randn(2, 2, a, b, generator=generator) * sharpness).softmax(-1)
    back = (torch.randn(2, 2, b, a, generator=generator) * sharpness).softmax(-1)
    found = aligned(there, back)
    assert ((np.abs(found) <= 1) | np.isnan(found)).all()
    np.testing.assert_allclose(found, aligned(back, there), atol=1e-9)


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="3 × 4 and 3 × 4 places are no pair"):
        aligned(torch.ones(1, 1, 3, 4) / 4, torch.ones(1, 1, 3, 4) / 4)


@pytest.mark.parametrize(
    ("mean", "word"),
    [(0.61, "strong"), (0.6, "partial"), (0.2, "partial"), (0.19, "conflict"), (float("nan"), "unknown")],
)
def test_agreement(mean, word):
    assert agreement(mean) == word


CALLS = ["cross.av", "cross.va", "self.attn"]


@pytest.mark.parametrize(
    "streams",
    [
        {"audio->video": "cross.av", "video->audio": "cross.va"},
        {"audio → video": "cross.av", "video→audio": "cross.va"},
        {"audio": "cross.av", "video": "cross.va"},
    ],
)
def test_streams_are_named(streams):
    directions, pairs = named(streams, CALLS)
    assert directions == {"cross.av": "audio→video", "cross.va": "video→audio"}
    (pair,) = pairs
    assert (pair.a, pair.b, pair.forward, pair.backward) == ("audio", "video", "cross.av", "cross.va")


def test_one_direction_alone_is_no_pair_and_a_module_may_hold_the_attention():
    directions, pairs = named({"text->image": "self"}, CALLS)
    assert directions == {"self.attn": "text→image"}
    assert pairs == []


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ({"a->b": "nowhere"}, "no attention was seen in 'nowhere'; there are cross.av, cross.va"),
        ({"a->b": "cross"}, "'cross' holds 2 attentions"),
        ({"a": "cross.av"}, "must name a direction"),
        ({"a->b->c": "cross.av"}, "must name a direction"),
    ],
)
def test_streams_that_cannot_be_found_are_told(streams, words):
    with pytest.raises(UsageError, match=words):
        named(streams, CALLS)


def test_pairs_are_recognised_by_name_or_tensor():
    there, back = torch.ones(1, 1, 3, 4) / 4, torch.ones(1, 1, 4, 3) / 3
    calls = [
        call(there, name="x.audio_to_video"), call(back, name="x.video_to_audio"),
        call(there, name="y.text2image"), call(back, name="z.image2text"),
        call(there, name="first", ends=(1, 2)), call(back, name="second", ends=(2, 1)),
    ]  # fmt: skip
    directions, pairs = recognised(calls)
    assert [(p.a, p.b, p.forward) for p in pairs] == [
        ("audio", "video", "x.audio_to_video"),
        ("queries of first", "queries of second", "first"),
    ]
    assert directions["x.video_to_audio"] == "video→audio"


def test_names_that_fit_with_sizes_that_do_not_are_no_pair():
    there = torch.ones(1, 1, 3, 4) / 4
    assert recognised([call(there, name="a_to_b"), call(there, name="b_to_a")]) == ({}, [])
