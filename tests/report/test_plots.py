"""What holds for every plot; tests of single plots are in ``plots/``."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil

import numpy as np
import pytest

from tests.helpers_report import HOSTILE, Plan, header, layout, write
from torchwatch.records import Eval, Interval, Step, System
from torchwatch.report import plots, style
from torchwatch.report.plots import Failure, Picture, draw_all
from torchwatch.report.report import build_report


@pytest.fixture
def coarse(monkeypatch):
    """Few pixels: what is tested is that it can be drawn at all."""
    monkeypatch.setattr(style, "DPI", 30)


def all_drawn(pictures) -> dict[str, Picture]:
    failed = {p.name: p.reason for p in pictures.values() if isinstance(p, Failure)}
    assert failed == {}
    return pictures


def test_every_file_is_a_named_plot():
    assert sorted(plots.NAMES) == sorted(m.name for m in pkgutil.iter_modules(plots.__path__))


@pytest.mark.parametrize("name", ["healthy", "faulty", "hostile", "one-step", "no-columns", "wide"])
@pytest.mark.slow
def test_all_plots_are_drawn_twice_and_have_words(pictures_of, name: str):
    for picture in all_drawn(pictures_of(name)).values():
        assert picture.light.startswith(b"\x89PNG")
        assert picture.dark.startswith(b"\x89PNG")
        assert picture.light != picture.dark
        assert picture.width == 1500
        assert picture.height >= 200
        assert len(picture.caption) > 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("faulty", set(plots.NAMES)),
        ("healthy", set(plots.NAMES) - {"timeline"}),
        ("no-columns", {"loss", "metrics", "throughput", "memory"}),
        ("empty", set()),
    ],
)
def test_only_what_was_recorded_is_drawn(pictures_of, name: str, expected: set[str]):
    assert expected == set(pictures_of(name)) - ({"timeline"} if "timeline" not in expected else set())


EXTREMES = {
    "huge": [1e300, -1e300, 1e308, -1.7e308],
    "tiny": [5e-324, 1e-310, 0.0],
    "nan": [math.nan] * 4,
    "infinite": [math.inf, -math.inf, 1.0],
    "negative": [-1.0, -1e-9, -1e9],
    "mixed": [0.0, math.nan, 1e38, -3.0, math.inf],
}


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.slow
def test_no_number_breaks_a_plot(tmp_path, coarse, kind: str):
    plan, lines = Plan(), []
    shape = layout(plan)
    with np.errstate(over="ignore"):
        for step, value in enumerate(EXTREMES[kind], 1):
            norms = np.full(len(shape.parameters), value).astype(np.float32)
            each = np.full(len(shape.layers), value).astype(np.float32)
            lines += [
                Step(
                    step=step, loss=value, lr=[value], grad_norm=value, grad_norm_preclip=value,
                    update_ratio=value,
                    metrics={"m": value}, grad_norms=norms, update_ratios=norms,
                    activations={"dead_fraction": each, "zero_fraction": each},
                ),
                Interval(last_step=step, samples_per_s=value, wait_share=value),
                System(time_s=step, step=step, rss_bytes=0),
                Eval(step=step, metrics={"val_loss": value, "val_m": value}),
            ]  # fmt: skip
    report = build_report(write(tmp_path / "a.jsonl", [header(plan), shape, *lines]))
    assert {"loss", "metrics", "gradient_norm", "gradient_flow"} <= set(all_drawn(draw_all(report)))


@pytest.mark.parametrize(
    "name", ["$x^{", "$\\frac{$", "_", "%", "\\", "\x00", "x" * 10_000, HOSTILE, "\ud83d"]
)
def test_no_name_breaks_a_plot(tmp_path, coarse, name: str):
    shape = layout(Plan())
    evil = [dataclasses.replace(x, name=f"{name}{i}") for i, x in enumerate(shape.layers)]
    column = np.ones(len(shape.parameters), np.float32)
    lines = [
        header(Plan()),
        dataclasses.replace(shape, layers=evil),
        Step(step=1, loss=1.0, metrics={name: 1.0}, grad_norms=column, update_ratios=column),
        Step(step=2, loss=1.0, metrics={name: 2.0}, grad_norms=column, update_ratios=column),
        Eval(step=2, metrics={name: 1.0, f"{name}loss": 1.0}),
    ]
    drawn = all_drawn(draw_all(build_report(write(tmp_path / "a.jsonl", lines))))
    assert {"loss", "metrics", "gradient_flow", "update_ratios"} <= set(drawn)


def test_a_plot_that_fails_does_not_stop_the_others(report_of, monkeypatch):
    memory = importlib.import_module("torchwatch.report.plots.memory")

    def broken(report, theme):
        raise ValueError("no ink")

    monkeypatch.setattr(memory, "draw", broken)
    monkeypatch.setattr(plots, "NAMES", ("memory", "throughput"))
    pictures = draw_all(report_of("healthy"))
    assert pictures["memory"] == Failure("memory", "Memory", "ValueError: no ink")
    assert isinstance(pictures["throughput"], Picture)
