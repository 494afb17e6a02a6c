"""What is said of an ablation, and what is kept quiet."""

from __future__ import annotations

import numpy as np

from torchwatch.examinations._ablation_remarks import remarks_of
from torchwatch.results.ablation import AxisAblation


def part(importance, half, *, kind="element", axis="channel", repeats=None, fill="permutation"):
    importance = np.asarray(importance, dtype=float)
    interval = np.stack([importance - half, importance + half], 1)
    ranking = tuple(int(i) for i in np.argsort(-importance) if not np.isnan(importance[i]))
    names = tuple(f"C{i}" for i in range(len(importance)))
    draws = np.ones(len(importance), int) if repeats is None else np.asarray(repeats)
    return AxisAblation(axis, kind, names, importance, interval, ranking, fill, draws)


def said(*parts, baseline=1.0, out_of_time=False):
    return remarks_of(parts, baseline, "mean squared error", 200, out_of_time=out_of_time)


def test_the_most_important_is_named_with_its_interval():
    (remark,) = said(part([0.0, 0.5, 0.3], 0.05))
    assert remark.severity == "info"
    assert remark.text == (
        "Channel `C1` matters most: permuted, the mean squared error changes by +0.5 (95 % interval 0.45 to "
        "0.55, +50%); next C2."
    )


def test_the_luckiest_of_many_is_not_named():
    importance = np.zeros(129)
    importance[7] = 0.011  # its own interval leaves out 0, but one of 129 will do that by chance
    (remark,) = said(part(importance, 0.01))
    assert remark.severity == "warning"
    assert (
        "without any one of 129 channels the mean squared error of 1 changes by no more than" in remark.text
    )


def test_what_does_harm_is_a_warning():
    remarks = said(part([0.5, -0.2, 0.0], 0.01))
    assert [r.severity for r in remarks] == ["info", "warning"]
    assert "does better without 1 of 3 along channel" in remarks[1].text
    assert "`C1` (-0.2)" in remarks[1].text
    assert remarks[1].fix


def test_less_noise_without_an_element_is_no_harm():
    assert len(said(part([0.5, -0.2, 0.0], 0.01, fill="mean"))) == 1
    assert len(said(part([0.5, -0.01, 0.0], 0.001))) == 1


def test_idle_blocks_are_a_warning():
    blocks = part([0.4, 0.0], [0.01, 0.0], kind="module", axis="module", fill="mean")
    remarks = said(part([0.5, 0.0], 0.01), blocks)
    assert [r.severity for r in remarks] == ["info", "info", "warning"]
    assert "The block `C0` matters most: replaced by its mean" in remarks[1].text
    assert remarks[2].text.startswith("1 of 2 blocks make no difference")


def test_the_time_limit_is_said():
    some = part([0.5, 0.2, np.nan], 0.01, repeats=[1, 1, 0])
    assert "1 of 3 elements were not tested and have no value" in said(some, out_of_time=True)[-1].text
    every = part([0.5, 0.2, 0.1], 0.01, repeats=[2, 1, 1])
    assert "before all draws" in said(every, out_of_time=True)[-1].text


def test_no_error_to_compare_with():
    assert "%)" not in said(part([0.5, 0.2], 0.01), baseline=0.0)[0].text.replace("95 %", "")
