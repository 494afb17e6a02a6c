"""Results of attributions and what builds on them, made by hand for tests of their pages."""

from __future__ import annotations

import math

import numpy as np

from torchwatch.results.agreement import Agreement, AxisAgreement
from torchwatch.results.attributions import (
    AttributionMap,
    Attributions,
    AxisProfile,
    Convergence,
    MethodAttribution,
    OutputAttribution,
    Randomisation,
)
from torchwatch.results.frequency_bands import FrequencyBands
from torchwatch.results.layer_attributions import Conductance, GradCam, LayerAttributions, Rollout
from torchwatch.results.topography import Layer, Topography

HOSTILE = "<b>$x_{1}$</b> | ☃\n"
_rng = np.random.default_rng(0)


def profile(axis, count, name=""):
    values = _rng.random(count) + np.where(np.arange(count) < 2, 3.0, 0.0)
    order = tuple(int(i) for i in np.argsort(-values))
    return AxisProfile(axis, tuple(f"{name}{i}" for i in range(count)), values, 0.1 * values, order)


def seen(rows, columns, shape):
    values = _rng.normal(size=shape)
    edges = (np.arange(n + 1) for n in shape)
    return AttributionMap(rows, columns, *edges, values, abs(values))


def attributions(channels=90, times=50, axes=("channel", "time")):
    counts = {"channel": channels, "feature": channels, "height": 12, "width": 16}
    names = {"channel": HOSTILE}

    def profiles():
        return tuple(profile(a, counts.get(a, times), names.get(a, "")) for a in axes)

    known = Randomisation(
        ("last layer (head)", "all layers"), np.array([0.4, 0.05]), np.array([0.6, 0.4]), 0.02, 5, 16, True
    )
    same = Randomisation(
        ("last layer (head)", "all layers"), np.array([1.0, 0.95]), np.ones(2), 0.0, 5, 16, False
    )
    methods = (
        MethodAttribution(
            "integrated_gradients", "Integrated Gradients", profiles(), Convergence(0.1, 10, 0.01, 0.0), known
        ),
        MethodAttribution("saliency", "Saliency", profiles(), None, same),
        MethodAttribution("smooth_grad", "SmoothGrad", profiles()),
    )
    last = axes[-2:]
    shape = tuple(counts.get(a, times) for a in last)
    return Attributions(
        "the output", "input `x`", axes, "an input of zeros", 100, 50, methods,
        outputs=(OutputAttribution(HOSTILE, profiles(), Convergence(0, 0, math.nan, math.nan)),),
        overview=seen(*last, shape) if len(axes) > 1 else None,
        not_run=(("DeepLift", "its module `act` is used 3 times"),),
        sample_rate=100.0,
    )  # fmt: skip


def layer_attributions(dims=1):
    axes = {1: ("time",), 2: ("height", "width")}[dims]
    shape = (1, 40) if dims == 1 else (12, 16)
    rows = "" if dims == 1 else "height"
    cams = tuple(
        GradCam(f"block.{i}", f"Conv{dims}d", (20,) * dims, axes, tuple(profile(a, 5) for a in axes),
                seen(rows, axes[-1], shape))
        for i in range(8)
    )  # fmt: skip
    flow = _rng.normal(size=64)
    order = tuple(int(i) for i in np.argsort(-abs(flow)))
    carried = (
        Conductance("block.0", "Conv1d", flow, abs(flow), order, 0, 0.98),
        Conductance(HOSTILE, "Linear", np.zeros(3), np.zeros(3), (0, 1, 2), 3, math.nan),
    )
    matrix = np.tril(np.ones((9, 9)))
    matrix /= matrix.sum(1, keepdims=True)
    rollout = Rollout(("encoder.0", "encoder.1"), "token", matrix, matrix.mean(0), causal=True)
    return LayerAttributions(
        "the output", "an input of zeros", 100, True, cams, carried, rollout,
        (("GradCAM of `x`", "it runs twice"),),
    )  # fmt: skip


def agreement(count=30, correlation=0.8):
    a, b = _rng.random((2, count))
    a[3] = math.nan
    axis = AxisAgreement(
        "channel", "element", tuple(HOSTILE + str(i) for i in range(count)), a, b, correlation,
        (0.5, 0.9) if math.isfinite(correlation) else (math.nan, math.nan), count - 1, ("c0",), ("c1",),
    )  # fmt: skip
    between = np.array([[1, 0.5, math.nan], [0.5, 1, -0.8], [math.nan, -0.8, 1]])
    names = ("Integrated Gradients", "Saliency", "SmoothGrad")
    return Agreement((axis,), "Integrated Gradients", names, between, "mean squared error")


def frequency_bands():
    importance = np.array([0.001, math.nan, 0.9, 0.02])
    interval = np.stack([importance - 0.01, importance + 0.01], 1)
    edges = np.array([[0.5, 4], [4, 8], [8, 13], [13, 30.0]])
    power = np.array([0.1, 0.2, 0.3, math.nan])
    return FrequencyBands(
        ("delta", "theta", HOSTILE, "beta"), edges, importance, interval, power, (2, 3, 0), 0.5,
        "mean squared error", "time", 100.0, 0.5, 80,
    )  # fmt: skip


def topography(count=60, line=False):
    angle = np.linspace(0, 5 * np.pi, count)
    places = np.stack([angle * np.cos(angle), 0 * angle if line else angle * np.sin(angle)], 1)
    places[4] = math.nan
    values = _rng.normal(size=count)
    values[2] = math.nan
    layers = (
        Layer("attribution", "Integrated Gradients: sum of |attribution|", abs(values), False, (0.1, 0.2)),
        Layer("ablation", "Ablation: rise of the mean squared error", values, True, (0.1, 0.2)),
    )
    return Topography(tuple(HOSTILE + str(i) for i in range(count)), places, "places as given", layers)
