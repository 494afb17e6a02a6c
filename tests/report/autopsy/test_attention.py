"""The page of attention: tables and pictures of what the result holds, and nothing of what it does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from torchwatch.report import style
from torchwatch.report.autopsy import attention as page
from torchwatch.report.document import Fold, Plot, Table
from torchwatch.results import plain
from torchwatch.results.attention import (
    Attention,
    AttentionContrast,
    AttentionLayer,
    AttentionMap,
    AttentionPair,
    AttentionSamples,
    ClassAttention,
    StreamPair,
)

SAMPLES = 12


def made(layers: int = 2, heads: int = 3, **changed) -> Attention:
    rng = np.random.default_rng(0)
    index = np.arange(SAMPLES)
    correct = (index % 3 > 0).astype(float)
    result = Attention(
        layers=tuple(layer(f"block.{i}.<b>attn</b>", heads, rng) for i in range(layers)),
        pairs=(
            StreamPair(
                "audio", "video", "block.0", "block.1", rng.uniform(-1, 1, SAMPLES), 0.1, 0.3, "conflict"
            ),
        ),
        samples=AttentionSamples(
            index, index % 2.0, rng.normal(size=SAMPLES), rng.uniform(size=SAMPLES), index % 2.0, correct
        ),
        contrast=(AttentionContrast("block.0", "entropy", 0.4, 0.6, -0.8, 0.01, 0.03),),
        contrasted=(("correct", 8), ("incorrect", 4)),
        classes=(ClassAttention("down", 6, rng.uniform(size=layers), rng.uniform(size=layers), np.zeros(1)),),
        maps=tuple(
            AttentionMap(f"block.{i}", i, "most focused", rng.uniform(size=(5, 8)), 1, 2) for i in range(6)
        ),
        contribution_of="total variation of the predicted probabilities",
        contribution_samples=12,
        class_names=("down", "up"),
    )
    return dataclasses.replace(result, **changed)


def layer(name: str, heads: int, rng: np.random.Generator) -> AttentionLayer:
    each = rng.uniform(size=(6, heads))
    return AttentionLayer(
        name, "cross", "audio→video", "recomputed", 5, 16, *each,
        patterns=("focused", "diffuse", "mixed")[:heads], pattern="mixed",
        contribution=rng.uniform(size=heads), error_change=rng.normal(size=heads),
        sample_entropy=rng.uniform(size=(SAMPLES, heads)), sample_most=rng.uniform(size=(SAMPLES, heads)),
        top_query=np.tile([1, 2, -1], (SAMPLES, 1)), top_key=np.tile([3, 4, -1], (SAMPLES, 1)),
        top_weight=np.tile([0.5, 0.25, np.nan], (SAMPLES, 1)), pairs=(AttentionPair(1, 3, 0.5),),
    )  # fmt: skip


def drawn(name, result):
    drawing = next(d for d in page.DRAWINGS if d.name == name)
    with style.themed(style.DARK):
        return drawing.draw(result, style.DARK)


def tables(result):
    shown = page.blocks(result)
    return [b for b in shown if isinstance(b, Table)], [b for b in shown if isinstance(b, Fold)]


def test_tables_say_what_the_result_holds():
    (layers, streams, sides), folds = tables(made())
    assert layers.rows[0][:4] == ["block.0.<b>attn</b>", "audio→video", "3", "5 × 16"]
    assert layers.rows[0][8:] == ["1", "1", "mixed", "recomputed"]
    assert streams.rows[0] == ["audio ↔ video", "block.0", "block.1", "0.1", "0.3", "conflict"]
    assert sides.head[2:4] == ["correct (8)", "incorrect (4)"]
    assert sides.rows[0][2:] == ["0.4", "0.6", "-0.8", "0.01", "0.03"]
    pairs, classes, samples = (fold.blocks[0] for fold in folds)
    assert pairs.rows[0] == ["block.0.<b>attn</b>", "1 → 3", "0.5"]
    assert classes.rows[0][:2] == ["down", "6"]
    assert samples.rows[1][1] == "up"
    assert samples.rows[0][5] == "no"
    assert samples.rows[0][-1] == "1 → 3 (0.5), 2 → 4 (0.25)"
    assert len(samples.head) == len(samples.rows[0])


def test_what_is_not_known_is_left_out_or_a_dash():
    nothing = np.full(SAMPLES, np.nan)
    samples = AttentionSamples(np.arange(SAMPLES), *[nothing] * 5)
    shown, folds = tables(made(pairs=(), contrast=(), classes=(), samples=samples))
    assert len(shown) == 1
    assert len(folds) == 2
    assert folds[1].blocks[0].rows[0][1:6] == ["–"] * 5


def test_more_than_forty_attentions_are_cut_to_the_most_focused_and_it_is_said():
    result = made(60)
    shown = tables(result)[0][0]
    assert len(shown.rows) == 40
    lowest = min(result.layers, key=lambda a: a.entropy.mean())
    assert lowest.name in [row[0] for row in shown.rows]
    figure = drawn("attention_heads", result)
    assert len(figure.axes[0].get_yticks()) == 40
    assert "40 of 60 attentions with the lowest entropy" in page.DRAWINGS[0].caption(result)
    assert len(drawn("attention_contributions", result).axes[0].patches) == 40
    assert "The 40 of 180 heads" in page.DRAWINGS[1].caption(result)


def test_heads_that_were_not_tried_have_no_bar():
    result = made()
    result.layers[0].contribution[:] = np.nan
    assert len(drawn("attention_contributions", result).axes[0].patches) == 3
    assert "3 of 6 heads were tried" in page.DRAWINGS[1].caption(result)


def test_maps_run_from_zero_and_have_places_as_they_are():
    figure = drawn("attention_maps", made())
    panels = [a for a in figure.axes if a.get_title("left")]
    assert len(panels) == 6
    assert panels[0].get_xlim() == (-0.5, 15.5), "two keys per cell"
    assert panels[0].collections[0].get_clim()[0] == 0
    assert "64 × 64" in page.DRAWINGS[2].caption(made())


def test_alignment_has_right_and_wrong_samples_apart():
    axes = drawn("attention_alignment", made()).axes[0]
    points = [line for line in axes.lines if line.get_marker() in "os" and len(line.get_xdata()) > 2]
    assert [len(p.get_xdata()) for p in points] == [8, 4]
    assert axes.get_xlim()[0] < -1


def test_nothing_is_drawn_where_nothing_is_known():
    result = made(maps=(), pairs=())
    for one in result.layers:
        one.contribution[:] = np.nan
        one.entropy[:] = np.nan
    assert [drawn(d.name, result) for d in page.DRAWINGS] == [None] * 4
    assert all(isinstance(d.caption(result), str) for d in page.DRAWINGS)
    assert {b.name for b in page.blocks(result) if isinstance(b, Plot)} == {d.name for d in page.DRAWINGS}


@pytest.mark.parametrize("drawing", page.DRAWINGS, ids=lambda d: d.name)
def test_every_picture_becomes_a_png(drawing):
    with style.themed(style.DARK):
        assert style.png(drawing.draw(made(), style.DARK)).startswith(b"\x89PNG")


def test_the_result_is_strict_json():
    assert plain(made())["layers"][0]["top_weight"][0] == [0.5, 0.25, None]
