"""Items of passes count once a gradient came, in the order of the passes, and are bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torchwatch.probes._passes import Passes


def test_only_passes_with_a_gradient_in_their_order() -> None:
    passes: Passes[str] = Passes(10)
    for item in "abcd":
        passes.add(item)
        passes.end(recording=item != "c")
    for turn in (3, 0, 3, 2):
        passes.trained(turn)
    assert passes.take() == ["a", "d"]
    assert passes.take() == []
    passes.trained(1)  # its gradient came late
    assert passes.take() == ["b"]


def test_a_pass_that_never_ends_counts_whenever_gradients_came() -> None:
    passes: Passes[str] = Passes(10)
    passes.add("a")
    passes.trained(0)
    passes.add("b")
    assert passes.take() == ["a", "b"]
    passes.add("c")
    assert passes.take() == []
    passes.trained(0)
    assert passes.take() == ["c"]


def test_items_of_an_earlier_pass() -> None:
    passes: Passes[str] = Passes(10)
    passes.end(recording=True)
    passes.add("loss", turn=0)
    passes.trained(0)
    assert passes.take() == ["loss"]


@given(
    most=st.integers(1, 5),
    events=st.lists(st.tuples(st.sampled_from(["add", "end", "trained"]), st.integers(0, 12)), max_size=60),
)
def test_it_is_bounded(most, events) -> None:
    passes: Passes[int] = Passes(most)
    for what, number in events:
        if what == "add":
            passes.add(number)
        elif what == "end":
            passes.end(recording=number % 2 == 0)
        else:
            passes.trained(number)
        assert len(passes._waiting) <= most
    assert len(passes.take()) <= most
    passes.forget()
    assert passes.take() == []
