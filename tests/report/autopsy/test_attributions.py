import dataclasses
import math

import numpy as np
import pytest

from tests import helpers_explained as made
from torchwatch.report import style
from torchwatch.report.autopsy import attributions as page
from torchwatch.report.document import Bullets, Fold, Plot, Table
from torchwatch.results import plain

RESULT = made.attributions()


def drawn(name, result):
    drawing = next(d for d in page.DRAWINGS if d.name == name)
    with style.themed(style.LIGHT):
        return drawing.draw(result, style.LIGHT)


def table(result, first):
    tables = [b for b in page.blocks(result) if isinstance(b, Table)]
    return next(t for t in tables if t.head[0] == first)


def test_methods_stand_beside_one_another():
    rows = table(RESULT, "method").rows
    assert [r[0] for r in rows] == ["Integrated Gradients", "Saliency", "SmoothGrad"]
    assert [r[-1] for r in rows] == ["yes", "no", "not tested"]
    assert [r[-3] for r in rows] == ["1 %", "–", "–"]


def test_the_ranking_and_what_was_not_run_are_there():
    blocks = page.blocks(RESULT)
    folds = [b for b in blocks if isinstance(b, Fold)]
    assert [f.summary for f in folds] == ["Ranking along channel", "Ranking along time"]
    assert folds[0].blocks[0].rows[0][4].endswith("%")
    (left,) = [b for b in blocks if isinstance(b, Bullets)]
    assert left.items == [("DeepLift", "its module `act` is used 3 times")]
    assert {b.name for b in blocks if isinstance(b, Plot)} == {d.name for d in page.DRAWINGS}


def test_single_outputs_have_a_table_without_numbers_that_are_not_there():
    assert table(RESULT, "output").rows[0][-1] == "–"


def test_rows_are_cut_to_forty_and_it_is_said():
    figure = drawn("attributions_profiles", RESULT)
    rows, curves = figure.axes
    assert len(rows.get_yticks()) == 40
    assert "The 40 most important of 90 along channel are shown." in page.DRAWINGS[0].caption(RESULT)
    assert curves.get_xlabel() == "time (s)"
    assert len(curves.lines) == 3


def test_the_signed_map_is_symmetric_about_zero():
    figure = drawn("attributions_map", RESULT)
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == -high < 0
    assert figure.axes[1].collections[0].get_clim()[0] == 0


@pytest.mark.parametrize(
    "axes", [("feature",), ("token",), ("channel", "height", "width"), ("time", "channel")]
)
def test_other_inputs_can_be_drawn(axes):
    result = made.attributions(channels=3, times=9, axes=axes)
    for drawing in page.DRAWINGS:
        figure = drawn(drawing.name, result)
        assert (figure is None) == (drawing.name == "attributions_map" and len(axes) == 1)
        assert drawing.caption(result)
    assert page.blocks(result)


def test_the_curves_of_the_check_begin_at_one():
    figure = drawn("attributions_randomisation", RESULT)
    assert all(line.get_ydata()[0] == 1 for line in figure.axes[0].lines[:2])
    untested = dataclasses.replace(RESULT, methods=RESULT.methods[2:])
    assert drawn("attributions_randomisation", untested) is None


def test_attributions_of_zero_can_be_drawn():
    first = RESULT.methods[0]
    empty = tuple(dataclasses.replace(p, importance=0 * p.importance) for p in first.profiles)
    result = dataclasses.replace(RESULT, methods=(dataclasses.replace(first, profiles=empty),))
    assert drawn("attributions_profiles", result) is not None
    assert page.blocks(result)


def test_one_sample_has_no_error_bars():
    first = RESULT.methods[0]
    alone = tuple(dataclasses.replace(p, error=np.full_like(p.error, math.nan)) for p in first.profiles)
    result = dataclasses.replace(RESULT, methods=(dataclasses.replace(first, profiles=alone),))
    assert drawn("attributions_profiles", result) is not None


def test_the_result_is_strict_json():
    values = plain(RESULT)
    assert values["outputs"][0]["convergence"]["ratio"] is None
    assert len(values["methods"][0]["profiles"][0]["importance"]) == 90


def test_every_picture_becomes_a_png():
    for drawing in page.DRAWINGS:
        with style.themed(style.DARK):
            assert style.png(drawing.draw(RESULT, style.DARK)).startswith(b"\x89PNG"), drawing.name
