"""straggler: one rank is slower than the others, and they wait for it."""

from __future__ import annotations

import pytest

from tests.checks.ranks import compare, train_on_two_ranks
from tests.run.ranks import SHARDS, layout
from torchwatch.diagnosis import diagnose
from torchwatch.records import End, Interval, LayerInfo, Layout, Step

SLUG = "straggler"
STEP_S = 0.2
USUAL = {"wait_share": 0.05, "forward_share": 0.25, "backward_share": 0.6, "optimizer_share": 0.05}


def rank(shares=USUAL, intervals=8, shape=None, watch_share=0.0):
    """Intervals of 20 steps of 0.2 s; ``shares`` of an interval may be a function of its index from 1."""
    body = [
        Interval(
            index=i, first_step=20 * i + 1, last_step=20 * i + 20, steps=20, time_s=4.0 * (i + 1),
            duration_s=4.0, busy_s=20 * STEP_S, watch_share=watch_share,
            **(shares(i + 1) if callable(shares) else shares),
        )
        for i in range(intervals)
    ]  # fmt: skip
    return [
        shape or layout("w"),
        *body,
        Step(step=20 * intervals, time_s=4.0 * intervals, loss=1.0),
        End(time_s=4.0 * intervals),
    ]


def part(**more):
    """The straggler has more of one part and waits less in its backward pass."""
    return USUAL | more | {"backward_share": 0.6 - sum(more[k] - USUAL[k] for k in more)}


@pytest.mark.parametrize(
    ("slow", "name"),
    [
        (part(wait_share=0.3), "waiting for data"),
        (part(forward_share=0.5), "the forward pass"),
        (part(optimizer_share=0.3), "the optimizer"),
        (USUAL | {"backward_share": 0.35}, "what the host does in between"),
    ],
    ids=["wait", "forward", "optimizer", "host"],
)
def test_the_rank_and_its_part_are_named(slow, name, tmp_path):
    _, (alert,) = compare(SLUG, tmp_path, [rank(), rank(), rank(slow), rank()])
    assert (alert.severity, alert.since_step) == ("warning", 1)
    assert alert.title == f"Rank 2 needs 1.6 times as long as the others: {name}"
    assert "50 ms more" in alert.detail


def test_of_two_ranks(tmp_path):
    _, (alert,) = compare(SLUG, tmp_path, [rank(part(wait_share=0.3)), rank()])
    assert "Rank 0" in alert.title


def test_it_begins_and_ends(tmp_path):
    later = rank(lambda i: part(wait_share=0.3) if 4 <= i <= 6 else USUAL)
    _, (alert,) = compare(SLUG, tmp_path, [rank(), later, rank()])
    assert alert.since_step == 61
    assert "3 intervals in a row" in alert.detail


def test_quiet(tmp_path):
    engine, alerts = compare(SLUG, tmp_path, [rank()] * 3)
    assert alerts == []
    assert engine.not_run() == {}


def test_near_miss_two_intervals(tmp_path):
    twice = rank(lambda i: part(wait_share=0.3) if i in (2, 3, 5, 6) else USUAL)
    assert compare(SLUG, tmp_path, [rank(), twice])[1] == []
    assert compare(SLUG, tmp_path, [rank(), twice], {"intervals": 2})[1]


def test_near_miss_a_third_is_not_reached(tmp_path):
    assert compare(SLUG, tmp_path, [rank(), rank(part(wait_share=0.17))])[1] == []
    assert compare(SLUG, tmp_path, [rank(), rank(part(wait_share=0.17))], {"factor": 1.25})[1]


def test_near_miss_all_that_is_little_beside_the_backward_pass(tmp_path):
    """Twice 4 % of a step."""
    tiny = {"wait_share": 0.0, "forward_share": 0.04, "backward_share": 0.96, "optimizer_share": 0.0}
    twice = tiny | {"forward_share": 0.08, "backward_share": 0.92}
    assert compare(SLUG, tmp_path, [rank(tiny), rank(twice)])[1] == []
    assert compare(SLUG, tmp_path, [rank(tiny), rank(twice)], {"of_step": 0})[1]


def test_what_watching_took_is_not_the_ranks(tmp_path):
    """A rank that is measured more closely: the others wait for that, too, and its own work is the same."""
    shares = {k: v / 0.7 for k, v in USUAL.items()} | {"wait_share": 0.05, "backward_share": 0.3 / 0.7}
    assert compare(SLUG, tmp_path, [rank(), rank(shares, watch_share=0.3)])[1] == []


@pytest.mark.parametrize(
    ("shape", "fields", "reason"),
    [
        (layout("w", gradients=SHARDS), {}, "spread over"),
        (layout("w"), {"device": {"shards": {"most": 2}}}, "spread over"),
        (Layout(layers=[LayerInfo("bn", "SyncBatchNorm")]), {}, "synchronised batch norms"),
    ],
    ids=["coverage", "header", "norms"],
)
def test_not_run_where_ranks_wait_for_each_other_elsewhere(shape, fields, reason, tmp_path):
    ranks = [rank(shape=shape), rank(part(wait_share=0.3), shape=shape)]
    engine, alerts = compare(SLUG, tmp_path, ranks, **fields)
    assert alerts == []
    assert reason in engine.not_run()[SLUG]


def test_not_run_where_too_few_intervals_were_timed(tmp_path):
    seldom = rank(lambda i: USUAL if i < 3 else {"wait_share": 0.5})
    engine, alerts = compare(SLUG, tmp_path, [rank(), seldom])
    assert alerts == []
    assert "2 seen" in engine.not_run()[SLUG]


@pytest.mark.slow
def test_a_real_rank_that_sleeps_in_its_forward_pass(tmp_path):
    found = diagnose(train_on_two_ranks("slow", tmp_path))
    (issue,) = (i for i in found.issues if i.check == SLUG)
    assert issue.title.startswith("Rank 1")
    assert issue.title.endswith("the forward pass")
    assert found.replay_matches
