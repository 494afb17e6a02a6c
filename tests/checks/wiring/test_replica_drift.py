"""replica-drift: ranks that should hold the same model do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.checks.ranks import compare, train_on_two_ranks
from tests.run.ranks import SHARDS, layout
from torchwatch.diagnosis import diagnose
from torchwatch.records import End, LayerInfo, Step, missing_column

SLUG = "replica-drift"
NAMES = ("a", "b", "c", "d")


def rank(gradients, weights=None, *, shape=None, steps=10):
    """A rank whose norms at a step are the functions' (four numbers)."""
    body = [
        Step(
            step=s,
            time_s=float(s),
            loss=1.0,
            grad_norms=np.array(gradients(s), np.float32),
            weight_norms=np.array((weights or (lambda s: (1, 2, 3, 4)))(s), np.float32),
        )
        for s in range(1, steps + 1)
    ]
    return [shape or layout(*NAMES), *body, End(time_s=float(steps))]


def same(s):
    return 1 / s, 2 / s, 3 / s, 4 / s


def other(s):
    return 1.1 / s, 1.9 / s, 3.2 / s, 4.3 / s


def test_gradients_that_nobody_averages(tmp_path):
    _, (alert,) = compare(SLUG, tmp_path, [rank(same), rank(other)])
    assert (alert.severity, alert.layer, alert.since_step) == ("critical", None, 1)
    assert alert.title.startswith("Gradients are not averaged")


def test_one_of_four_ranks_is_enough(tmp_path):
    _, (alert,) = compare(SLUG, tmp_path, [rank(same), rank(same), rank(other), rank(same)])
    assert alert.severity == "critical"


def test_replicas_that_began_with_other_weights(tmp_path):
    unlike = rank(same, lambda s: (1, 2, 3.1, 4))
    _, (alert,) = compare(SLUG, tmp_path, [rank(same), unlike])
    assert (alert.severity, alert.since_step) == ("critical", 1)
    assert alert.title.startswith("The ranks' weights differ: 1 parameters")
    assert "c has the norms 3, 3.1 on the ranks at step 10" in alert.detail


def test_replicas_that_drift_apart_later(tmp_path):
    drifting = rank(same, lambda s: (1, 2, 3, 4 if s < 5 else 4 + 0.1 * s))
    _, (alert,) = compare(SLUG, tmp_path, [rank(same), drifting])
    assert alert.since_step == 5


def test_a_layout_that_is_written_again_loses_nothing(tmp_path):
    """It comes again when the coverage changes; the parameters are the same."""

    def again(body):
        return [*body[:9], dataclasses.replace(layout(*NAMES), step=9), *body[9:]]

    unlike = rank(same, lambda s: (1, 2, 3.1 if s < 9 else 3.2, 4))
    _, (alert,) = compare(SLUG, tmp_path, [again(rank(same)), again(unlike)])
    assert alert.since_step == 1


def test_quiet_on_replicas(tmp_path):
    engine, alerts = compare(SLUG, tmp_path, [rank(same)] * 3)
    assert alerts == []
    assert engine.not_run() == {}


def test_near_miss_the_last_digit(tmp_path):
    """Norms have four digits in the file."""
    near = rank(lambda s: [1.001 * v for v in same(s)], lambda s: (1.001, 2, 3, 4.003))
    assert compare(SLUG, tmp_path, [rank(same), near])[1] == []
    assert compare(SLUG, tmp_path, [rank(same), near], {"weights": 0.0005, "gradients": 0.0005})[1]


def test_near_miss_parameters_of_tensor_parallel_ranks(tmp_path):
    """Two parameters are split between the ranks, two are replicas: nothing is known of the first two."""
    split = rank(lambda s: (1.5 / s, 2.5 / s, 3 / s, 4 / s), lambda s: (1.5, 2.5, 3, 4))
    assert compare(SLUG, tmp_path, [rank(same), split])[1] == []
    assert compare(SLUG, tmp_path, [rank(same), split], {"parameters": 0.5})[1]


def test_near_miss_weights_that_were_apart_for_a_moment(tmp_path):
    moment = rank(same, lambda s: (1, 2, 3, 4.5 if s in (3, 4, 5) else 4))
    assert compare(SLUG, tmp_path, [rank(same), moment])[1] == []


def test_near_miss_few_steps_in_common(tmp_path):
    engine, alerts = compare(SLUG, tmp_path, [rank(same, steps=2), rank(other, steps=2)])
    assert alerts == []
    assert "needs 3 steps" in engine.not_run()[SLUG]


@pytest.mark.parametrize(
    ("shapes", "fields", "reason"),
    [
        ([layout(*NAMES, gradients=SHARDS)] * 2, {}, "spread over the ranks"),
        ([layout(*NAMES)] * 2, {"device": {"shards": {"most": 2, "others": {}}}}, "spread over the ranks"),
        ([layout(*NAMES)] * 2, {"model": "FullyShardedDataParallel"}, "spread over the ranks"),
        ([layout(*(f"_fsdp.{n}" for n in NAMES))] * 2, {}, "spread over the ranks"),
        ([layout(*NAMES), layout(*NAMES, stepped=False)], {}, "stepped by one of them only"),
        ([layout(*NAMES), layout("a", "b", "c", "e")], {}, "different parameters"),
    ],
    ids=["coverage", "header", "FSDP1", "FSDP1 names", "ZeRO", "pipeline"],
)
def test_what_cannot_be_compared_is_not_run(shapes, fields, reason, tmp_path):
    ranks = [rank(gradients, shape=shape) for gradients, shape in zip((same, other), shapes, strict=True)]
    engine, alerts = compare(SLUG, tmp_path, ranks, **fields)
    assert alerts == []
    assert reason in engine.not_run()[SLUG]


def test_a_model_that_is_spread_in_part(tmp_path):
    """Only the parameters that every rank holds whole are compared."""
    device = {"shards": {"most": 2, "others": {"c": 1, "d": 1}}}
    split = rank(lambda s: (9 / s, 9 / s, 3 / s, 4 / s), lambda s: (9, 9, 3, 4))
    assert compare(SLUG, tmp_path, [rank(same), split], device=device)[1] == []
    assert compare(SLUG, tmp_path, [rank(same), rank(other)], device=device)[1]


def test_parameters_without_gradients_say_nothing(tmp_path):
    def none(s):
        row = missing_column(4)
        row[1] = 0.0
        return row

    assert compare(SLUG, tmp_path, [rank(none), rank(none, lambda s: (5, 6, 7, 8))])[1] == []


def test_a_rank_without_a_layout(tmp_path):
    bare = [r for r in rank(same) if not hasattr(r, "layers")]
    engine, alerts = compare(SLUG, tmp_path, [rank(same), bare])
    assert alerts == []
    assert "no layout" in engine.not_run()[SLUG]


def test_a_wrapper_among_the_layers(tmp_path):
    shape = dataclasses.replace(layout(*NAMES), layers=[LayerInfo("", "FullyShardedDataParallel")])
    engine, _ = compare(SLUG, tmp_path, [rank(same, shape=shape), rank(other, shape=shape)])
    assert SLUG in engine.not_run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "title"),
    [("plain", None), ("apart", "Gradients are not averaged"), ("unlike", "The ranks' weights differ: 4")],
)
def test_real_ranks(how, title, tmp_path):
    found = diagnose(train_on_two_ranks(how, tmp_path))
    said = [i.title for i in found.issues if i.check == SLUG]
    assert [s[: len(title or "")] for s in said] == ([] if title is None else [title])
    assert SLUG not in found.not_run
    assert found.replay_matches
