import dataclasses
import math

import numpy as np
import pytest

from tests import helpers_explained as made
from torchwatch.report import style
from torchwatch.report.autopsy import topography as page
from torchwatch.report.document import Table, Text


def drawn(result):
    (drawing,) = page.DRAWINGS
    with style.themed(style.LIGHT):
        return drawing.draw(result, style.LIGHT)


def test_the_highest_sensors_are_a_table():
    blocks = page.blocks(made.topography())
    (table,) = [b for b in blocks if isinstance(b, Table)]
    assert len(table.rows) == 10
    values = [float(r[1]) for r in table.rows]
    assert values == sorted(values, reverse=True)
    assert any("59 of 60 channels have a place" in b.text for b in blocks if isinstance(b, Text))


def test_signed_maps_diverge_and_others_begin_at_zero():
    figure = drawn(made.topography())
    (low, _), (signed_low, signed_high) = (a.collections[-1].get_clim() for a in figure.axes[:2])
    assert low == 0
    assert signed_low == -signed_high


def test_only_the_highest_of_many_are_named():
    result = made.topography()
    assert len(drawn(result).axes[0].texts) == 10
    assert "The 10 highest of 59 are named." in page.DRAWINGS[0].caption(result)
    assert "Crosses: not tested." in page.DRAWINGS[0].caption(result)
    assert len(drawn(made.topography(count=12)).axes[0].texts) == 11


@pytest.mark.parametrize(
    "result", [made.topography(line=True), made.topography(count=6)], ids=["line", "few"]
)
def test_places_without_an_area_are_dots(result):
    assert drawn(result) is not None


def test_no_places_no_picture():
    result = made.topography()
    nowhere = dataclasses.replace(result, positions=np.full_like(result.positions, math.nan))
    assert drawn(nowhere) is None


def test_every_picture_becomes_a_png():
    for drawing in page.DRAWINGS:
        with style.themed(style.DARK):
            assert style.png(drawing.draw(made.topography(), style.DARK)).startswith(b"\x89PNG"), drawing.name
