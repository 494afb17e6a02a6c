"""Maps of steps: the same whichever way the steps came, bounded."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers_checks import layout
from torchwatch.history import History
from torchwatch.history.maps import STRETCHES, Maps, Stretch
from torchwatch.records import Record, Step, Steps, batch, decode, encode


def history_of(*records: Record) -> History:
    history = History()
    for record in records:
        history.add(decode(encode(record)))
    return history


def step(number: int, **fields: Any) -> Step:
    return Step(step=number, **fields)


def test_equal_values_in_a_row_are_one_stretch_and_a_gap_ends_it() -> None:
    words = ["a", "a", "b", None, "b", "b"]
    history = history_of(*[step(n, fingerprint=word) for n, word in enumerate(words, 1)])
    assert history.stretches("fingerprint") == (
        Stretch(1, 2, "a"), Stretch(3, 3, "b"), Stretch(5, 6, "b"),
    )  # fmt: skip
    assert history.stretches("fingerprint", 1) == (Stretch(5, 6, "b"),)
    assert history.stretches("fingerprint", 0) == ()
    assert [history.value_at("fingerprint", n) for n in range(8)] == [None, *words, None]
    assert history.stretches("wiring") == ()
    assert history.stretches("no such field") == ()


def test_a_new_layout_of_other_names_forgets_indices() -> None:
    before, same, other = layout(("0", "1")), layout(("0", "1")), layout(("0", "2"))
    found = {"where": "forward", "name": "1", "order": 1, "seen_by": "sentinel"}
    history = history_of(before, step(1, wiring={"training": True}, first_nonfinite=found), same)
    assert history.value_at("wiring", 1) == {"training": True}
    history.add(other)
    assert history.value_at("wiring", 1) is None
    assert history.value_at("first_nonfinite", 1) == found


_VALUES = st.one_of(st.none(), st.sampled_from(["a", "b"]))
_FOUND = st.one_of(st.none(), st.builds(lambda name: {"name": name, "list": [1, [2]]}, st.sampled_from("xy")))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(_VALUES, _FOUND), min_size=1, max_size=30), max_size=12))
def test_lines_of_steps_and_single_steps_are_the_same(lines) -> None:
    single, batched, number = History(), History(), 0
    for line in lines:
        steps = []
        for word, found in line:
            number += 1
            steps.append(step(number, fingerprint=word, first_nonfinite=found))
        for one in steps:
            single.add(one)
        batched.add(decode(encode(batch(steps))))
    flat = [pair for line in lines for pair in line]
    for place, name in enumerate(("fingerprint", "first_nonfinite")):
        assert single.stretches(name) == batched.stretches(name)
        kept = single.stretches(name)
        low = kept[0].first if kept else 1
        truth = [pair[place] for pair in flat]
        assert [single.value_at(name, n + 1) for n in range(low - 1, len(flat))] == truth[low - 1 :]


def test_it_is_bounded() -> None:
    maps = Maps()
    numbers = list(range(1, 1001))
    maps.take_steps(Steps(step=numbers, fingerprint=[str(n) for n in numbers]))
    assert len(maps.stretches("fingerprint")) == STRETCHES
    assert maps.value_at("fingerprint", 1000) == "1000"
    assert maps.value_at("fingerprint", 1) is None
