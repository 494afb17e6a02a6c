"""dead-units: units that are zero for every sample."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_training import classes, trained
from torchwatch.records import LayerInfo, Layout, OptimizerInfo, ParameterInfo

SLUG = "dead-units"


def layers(*specs):
    """A layout from (name, type, input shape, output shape) in call order; the usual types own weights."""
    infos, parameters = [], []
    for order, (name, kind, given, out) in enumerate(specs):
        owns = "Linear" in kind or kind.startswith(("Conv", "BatchNorm", "LayerNorm", "Embedding"))
        infos.append(LayerInfo(name, kind, 256 if owns else 0, order=order, inputs=[given], outputs=[out]))
        if owns:
            parameters.append(
                ParameterInfo(f"{name}.weight", order, out[:2], "float32", optimizer=0, group=0)
            )
    return Layout(1, infos, parameters, [OptimizerInfo("SGD", [{"lr": 0.01}])])


MLP = layers(
    ("a", "Linear", [64, 100], [64, 32]), ("relu", "ReLU", [64, 32], [64, 32]),
    ("drop", "Dropout", [64, 32], [64, 32]), ("b", "Linear", [64, 32], [64, 10]),
)  # fmt: skip
FUNCTIONAL = layers(("a", "Linear", [64, 100], [64, 32]), ("b", "Linear", [64, 32], [64, 10]))
CNN = layers(
    ("c1", "Conv2d", [64, 1, 8, 8], [64, 16, 8, 8]), ("n1", "BatchNorm2d", [64, 16, 8, 8], [64, 16, 8, 8]),
    ("pool", "MaxPool2d", [64, 16, 8, 8], [64, 16, 4, 4]), ("c2", "Conv2d", [64, 16, 4, 4], [64, 8, 4, 4]),
    ("flat", "Flatten", [64, 8, 4, 4], [64, 128]), ("f", "Linear", [64, 128], [64, 10]),
)  # fmt: skip


def run(shape, dead, steps=200, samples=64, **more):
    """``dead``: dead fractions per layer, or a function of the step; measured once 512 samples were seen."""

    def row(step):
        seen = (min(step, 10) + max(0, step // 10 - 1)) * samples
        given = dead(step) if callable(dead) else dead
        return given if seen >= 512 else [None] * len(shape.layers)

    def due(step):
        return row(step) if step <= 10 or step % 10 == 0 else [None] * len(shape.layers)

    made = records(
        steps=steps, layers=shape, samples=samples, columns={"activations.dead_fraction": due}, **more
    )
    return [_without_column(r) for r in made]


def _without_column(record):
    """Steps that are not sampled carry no column at all."""
    sampled = getattr(record, "step", 0)
    if getattr(record, "activations", None) is None or sampled <= 10 or sampled % 10 == 0:
        return record
    return dataclasses.replace(record, activations=None)


def test_fires_on_an_activation_module_and_names_what_feeds_it():
    alert = assert_fires(
        SLUG, run(MLP, [0.0, 0.8, None, 0.8]), severity="warning", layer="relu", since=(1, 1), by=9
    )
    assert alert.title.startswith("80% of the 32 units of relu")
    assert "fed by a (Linear)" in alert.detail


def test_activation_modules_are_not_counted_twice():
    _, alerts = run_check(SLUG, run(MLP, [0.0, 0.8, None, 0.8]))
    assert {a.layer for a in alerts} == {"relu"}


def test_fires_on_a_functional_relu_and_names_the_layer_before():
    alert = assert_fires(SLUG, run(FUNCTIONAL, [0.0, 0.7]), severity="warning", layer="a")
    assert "input of b (Linear)" in alert.detail


def test_the_norm_layer_before_a_functional_relu_is_named_across_pooling():
    assert_fires(SLUG, run(CNN, [0.0, None, None, 0.75, None, 0.0]), severity="warning", layer="n1")


def test_one_finding_for_a_layer_that_two_others_read():
    shape = layers(
        ("a", "Linear", [64, 100], [64, 32]),
        ("b", "Linear", [64, 32], [64, 10]),
        ("c", "Linear", [64, 32], [64, 5]),
    )
    _, alerts = run_check(SLUG, run(shape, [0.0, 0.6, 0.7]))
    assert {a.layer for a in alerts} == {"a"}
    assert alerts[0].value == pytest.approx(0.7)


def test_onset_is_where_the_silent_samples_began():
    def dead(step):
        return [0.0, 0.9 if step >= 180 else 0.02, None, 0.0]

    # 512 samples are eight sampled steps of 64: 110, 120 … 180
    assert_fires(SLUG, run(MLP, dead, steps=300), layer="relu", since=(110, 110), by=190)


def test_info_above_ten_percent_and_nothing_below():
    assert_quiet(SLUG, run(MLP, [0.0, 0.4, None, 0.4]), allow_info=True)
    assert_fires(SLUG, run(MLP, [0.0, 0.4, None, 0.4]), severity="info", layer=None)
    assert_quiet(SLUG, run(MLP, [0.0, 0.09, None, 0.09]))


def test_near_miss_constant_raw_inputs():
    assert_quiet(SLUG, run(MLP, [0.9, 0.0, None, 0.0]))
    again = layers(
        ("a", "Linear", [64, 32], [64, 32]),
        ("b", "Linear", [64, 32], [64, 32]),
        ("c", "Linear", [64, 32], [64, 10]),
    )
    assert_quiet(SLUG, run(again, [0.9, 0.9, 0.0]))
    assert_fires(SLUG, run(again, [0.9, 0.8, 0.0]), layer="a")


def test_near_miss_inputs_of_another_width_are_not_the_layers_before():
    skip = layers(("a", "Linear", [64, 100], [64, 32]), ("wide", "Linear", [64, 100], [64, 10]))
    assert_quiet(SLUG, run(skip, [0.0, 0.9]))


def test_near_miss_one_observation():
    def dead(step):
        return [0.0, 0.9 if step == 100 else 0.0, None, 0.0]

    assert_quiet(SLUG, run(MLP, dead))
    assert_fires(SLUG, run(MLP, dead), limits={"observations": 0}, by=100)


def test_near_miss_a_rectifier_at_the_very_end():
    ending = layers(("a", "Linear", [64, 100], [64, 32]), ("relu", "ReLU", [64, 32], [64, 32]))
    assert_quiet(SLUG, run(ending, [0.0, 0.9]))
    assert_fires(SLUG, run(ending, [0.0, 0.9]), limits={"final": 0}, layer="relu")


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "Softmax", "QuickGELUActivation"])
def test_other_activations_are_never_dead_and_hide_their_readers(kind):
    shape = layers(
        ("a", "Linear", [64, 100], [64, 32]),
        ("act", kind, [64, 32], [64, 32]),
        ("b", "Linear", [64, 32], [64, 10]),
    )
    assert_quiet(SLUG, run(shape, [0.0, 0.9, 0.9]))


def test_a_flattened_image_counts_positions_so_its_limits_are_higher():
    assert_quiet(SLUG, run(CNN, [0.0, None, None, 0.0, None, 0.45]))
    assert_fires(SLUG, run(CNN, [0.0, None, None, 0.0, None, 0.8]), severity="info", layer=None)
    assert_fires(SLUG, run(CNN, [0.0, None, None, 0.0, None, 0.95]), severity="warning", layer="c2")
    assert_fires(
        SLUG,
        run(CNN, [0.0, None, None, 0.0, None, 0.6]),
        severity="warning",
        limits={"flat_info": 0, "flat_warning": 0},
    )


def test_a_layer_of_few_units_is_an_info():
    small = layers(
        ("a", "Linear", [64, 9], [64, 4]),
        ("relu", "ReLU", [64, 4], [64, 4]),
        ("b", "Linear", [64, 4], [64, 2]),
    )
    assert_quiet(SLUG, run(small, [0.0, 0.75, 0.75]), allow_info=True)
    assert_fires(SLUG, run(small, [0.0, 0.75, 0.75]), severity="warning", limits={"least_units": 0})


def test_not_ready_before_enough_samples():
    engine, alerts = run_check(SLUG, run(MLP, [0.0, 0.9, None, 0.9], steps=30, samples=16))
    assert not alerts
    assert "`activations.dead_fraction`" in engine.not_run()[SLUG]


def test_resolved_when_units_come_back():
    def dead(step):
        return [0.0, 0.9 if step < 100 else 0.0, None, 0.0]

    _, alerts = run_check(SLUG, run(MLP, dead))
    assert [a.state for a in alerts if a.state != "updated"] == ["opened", "resolved"]


def test_limits():
    assert_quiet(SLUG, run(MLP, [0.0, 0.8, None, 0.8]), limits={"warning": 0.85}, allow_info=True)
    assert_quiet(SLUG, run(MLP, [0.0, 0.8, None, 0.8]), limits={"info": 0.85})
    assert np.isclose(assert_fires(SLUG, run(MLP, [0.0, 0.8, None, 0.8])).threshold, 0.5)


def test_a_layer_that_dies_later_is_an_issue_of_its_own():
    def dead(step):
        return [0.0, 0.9 if step >= 180 else 0.15, None, 0.0]

    run_later = run(MLP, dead, steps=300)
    assert_fires(SLUG, run_later, severity="info", layer=None, since=(1, 1))
    assert_fires(SLUG, run_later, severity="warning", layer="relu", since=(110, 110))


def test_the_info_names_the_worst_of_all_layers():
    alert = assert_fires(SLUG, run(CNN, [0.0, None, None, 0.2, None, 0.6]), severity="info", layer=None)
    assert "of c2 are dead, and some of 1 more layers" in alert.title
    assert "20% of the 16 units of n1" in alert.detail


@pytest.mark.parametrize("shift", [20.0, 0.0])
def test_a_real_update_that_was_far_too_large(shift, tmp_path):
    batch = classes()

    def far(model, step):
        if step == 100:
            with torch.no_grad():
                model[0].bias -= shift

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    def make():
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))

    made = trained(tmp_path, make, loss, steps=160, before=far, activations_every=5)
    if shift:
        assert_fires(SLUG, made, severity="warning", layer="1", since=(95, 105))
    else:
        assert_quiet(SLUG, made)
