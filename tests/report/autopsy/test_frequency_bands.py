import dataclasses
import math

import numpy as np

from tests import helpers_explained as made
from torchwatch.report import style
from torchwatch.report.autopsy import frequency_bands as page
from torchwatch.report.document import Table

RESULT = made.frequency_bands()


def drawn(result):
    (drawing,) = page.DRAWINGS
    with style.themed(style.LIGHT):
        return drawing.draw(result, style.LIGHT)


def test_what_was_not_tested_is_said_and_never_0():
    (table,) = [b for b in page.blocks(RESULT) if isinstance(b, Table)]
    assert [r[2] for r in table.rows] == ["0.001", "not tested", "0.9", "0.02"]
    assert [r[3] for r in table.rows][1] == "–"
    assert [r[4] for r in table.rows] == ["10 %", "20 %", "30 %", "–"]
    assert "1 of 4 bands were not tested." in page.DRAWINGS[0].caption(RESULT)


def test_a_row_for_each_band_and_the_power_beside_it():
    figure = drawn(RESULT)
    left, right = figure.axes
    assert left.get_yticklabels()[0].get_text() == "delta (0.5–4 Hz)"
    assert [t.get_text().strip() for t in left.texts] == ["not tested"]
    assert len(right.patches) == 4


def test_nothing_tested_is_not_drawn():
    nothing = dataclasses.replace(RESULT, importance=np.full(4, math.nan), ranking=())
    assert drawn(nothing) is None
    assert page.blocks(nothing)


def test_every_picture_becomes_a_png():
    for drawing in page.DRAWINGS:
        with style.themed(style.DARK):
            assert style.png(drawing.draw(RESULT, style.DARK)).startswith(b"\x89PNG"), drawing.name
