import dataclasses
import math

import numpy as np

from tests import helpers_explained as made
from torchwatch.report import style
from torchwatch.report.autopsy import agreement as page
from torchwatch.report.document import Table


def drawn(name, result):
    drawing = next(d for d in page.DRAWINGS if d.name == name)
    with style.themed(style.LIGHT):
        return drawing.draw(result, style.LIGHT)


def test_the_table_says_what_was_compared():
    (table,) = [b for b in page.blocks(made.agreement()) if isinstance(b, Table)]
    assert table.rows[0][:4] == ["channel (elements)", "29 of 30", "0.8", "0.5 … 0.9"]


def test_no_correlation_is_a_dash():
    (table,) = [b for b in page.blocks(made.agreement(correlation=math.nan)) if isinstance(b, Table)]
    assert table.rows[0][2:4] == ["–", "–"]


def test_a_point_for_each_element_that_both_know():
    result = made.agreement()
    figure = drawn("agreement_scatter", result)
    (axes,) = [a for a in figure.axes if a.lines]
    assert len(axes.lines[1].get_xdata()) == 29
    assert "1 elements that were not tested" in page.DRAWINGS[0].caption(result)
    assert len(axes.texts) == 3


def test_methods_are_a_map_from_minus_one_to_one():
    figure = drawn("agreement_methods", made.agreement())
    assert figure.axes[0].collections[0].get_clim() == (-1, 1)
    assert len(figure.axes[0].texts) == 7, "what has no value has no number"


def test_one_method_has_nobody_to_be_compared_with():
    result = dataclasses.replace(made.agreement(), methods=("Saliency",), between=np.ones((1, 1)))
    assert drawn("agreement_methods", result) is None


def test_every_picture_becomes_a_png():
    for drawing in page.DRAWINGS:
        with style.themed(style.DARK):
            assert style.png(drawing.draw(made.agreement(), style.DARK)).startswith(b"\x89PNG"), drawing.name
