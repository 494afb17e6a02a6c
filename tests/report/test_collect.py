from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tests.helpers_report import Plan, run
from torchwatch import records
from torchwatch.records import Epoch, Eval, Interval, LayerInfo, Layout, ParameterInfo, Record, Step
from torchwatch.report.collect import Collected, Collector

LAYOUT = Layout(
    layers=[LayerInfo("late", "Linear", order=1), LayerInfo("early", "Linear", order=0)],
    parameters=[
        ParameterInfo("late.weight", 0, [2, 3], "float32"),
        ParameterInfo("late.bias", 0, [2], "float32"),
        ParameterInfo("early.weight", 1, [4], "float32"),
    ],
)


def collect(*lines: Record) -> Collected:
    collector = Collector()
    for line in lines:
        collector.add(line)
    return collector.finish()


def column(*values: float) -> records.Column:
    return np.array(values, np.float32)


def test_gradient_rms_joins_the_parameters_of_a_layer():
    found = collect(LAYOUT, Step(step=1, grad_norms=column(3.0, 4.0, 6.0)))
    layers = found.trace.maps["gradients"]
    assert layers.names == ("early", "late")
    assert layers.values[:, 0] == pytest.approx([6 / math.sqrt(4), math.sqrt((9 + 16) / 8)])


def test_a_nan_gradient_marks_its_layer_and_spares_the_other():
    found = collect(LAYOUT, Step(step=1, grad_norms=column(3.0, math.nan, 6.0)))
    layers = found.trace.maps["gradients"]
    assert layers.bad[:, 0].tolist() == [False, True]
    assert layers.values[1, 0] == pytest.approx(3 / math.sqrt(6))


def test_missing_entries_are_neither_bad_nor_zero():
    norms = records.missing_column(3)
    norms[2] = 6.0
    layers = collect(LAYOUT, Step(step=1, grad_norms=norms)).trace.maps["gradients"]
    assert layers.names == ("early",)
    assert not layers.bad.any()


def test_update_ratio_of_a_layer_is_that_of_its_largest_parameter():
    layers = collect(LAYOUT, Step(step=1, update_ratios=column(1e-3, 9.0, 2e-3))).trace.maps["updates"]
    assert layers.values[:, 0] == pytest.approx([2e-3, 1e-3])


def test_columns_of_another_width_are_not_guessed():
    assert collect(LAYOUT, Step(step=1, grad_norms=column(1.0))).trace.maps == {}


def test_a_layer_keeps_its_row_when_the_layout_changes():
    grown = Layout(
        step=2,
        layers=[LayerInfo("new", "Linear", order=2), *LAYOUT.layers],
        parameters=[ParameterInfo("new.weight", 0, [4], "float32")],
    )
    found = collect(
        LAYOUT, Step(step=1, grad_norms=column(3.0, 4.0, 6.0)), grown, Step(step=2, grad_norms=column(8.0))
    )
    layers = found.trace.maps["gradients"]
    assert layers.names == ("early", "late", "new")
    assert layers.values[2, 1] == 4.0
    assert np.isnan(layers.values[2, 0])


def test_fast_steps_are_read_as_single_ones():
    plan = Plan(epochs=2)
    slow, fast = collect(*run(plan)), collect(*run(dataclasses.replace(plan, fast=True)))
    assert fast.steps == slow.steps == 90
    assert fast.time_s == slow.time_s
    assert fast.trace.curves.keys() == slow.trace.curves.keys()
    for name, curve in slow.trace.curves.items():
        assert fast.trace.curves[name].mean.tolist() == pytest.approx(
            curve.mean.tolist(), rel=1e-4, nan_ok=True
        )
        assert fast.trace.curves[name].steps.tolist() == curve.steps.tolist()
    for kind, layers in slow.trace.maps.items():
        np.testing.assert_array_equal(fast.trace.maps[kind].values, layers.values)


def test_thousands_of_observations_are_bounded_and_no_bad_one_is_lost():
    collector = Collector()
    collector.add(LAYOUT)
    for step in range(1, 10_001):
        value = math.nan if step == 7_777 else 1.0
        collector.add(Step(step=step, grad_norms=column(1.0, 1.0, value)))
    assert len(collector._layers._seen["gradients"]._steps) < 1024
    layers = collector.finish().trace.maps["gradients"]
    assert layers.bad.sum() == 1
    at = layers.edges[layers.bad[0].argmax()]
    assert abs(at - 7_777) < 200


def test_metrics_of_an_epoch_are_not_counted_twice():
    found = collect(
        Step(step=5),
        Eval(step=5, metrics={"val_loss": 1.0}),
        Epoch(step=5, metrics={"val_loss": 1.0, "accuracy": 0.5}),
    )
    assert found.trace.evals["val_loss"].values.tolist() == [1.0]
    assert found.trace.evals["accuracy"].values.tolist() == [0.5]


def test_a_flood_of_metric_names_is_bounded():
    found = collect(*(Step(step=i, metrics={f"m{i}": 1.0}) for i in range(1, 500)))
    assert len(found.trace.curves) <= 64


def test_interval_fields_are_read_at_their_last_step():
    found = collect(Interval(last_step=20, samples_per_s=5.0, dropped=3), Interval(last_step=40, dropped=1))
    assert found.trace.intervals["samples_per_s"].at.tolist() == [20]
    assert found.dropped == 4


def test_logs_and_notes_are_the_last_two_hundred():
    found = collect(*(records.Log(step=i) for i in range(300)), records.Note(step=1, message="x"))
    assert [log.step for log in found.logs] == list(range(100, 300))
    assert found.notes[0].message == "x"
