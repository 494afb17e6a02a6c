import dataclasses

import pytest

from tests import helpers_explained as made
from torchwatch.report import style
from torchwatch.report.autopsy import layer_attributions as page
from torchwatch.report.document import Plot, Table
from torchwatch.results import plain


def drawn(name, result):
    drawing = next(d for d in page.DRAWINGS if d.name == name)
    with style.themed(style.DARK):
        return drawing.draw(result, style.DARK)


@pytest.mark.parametrize("dims", [1, 2])
def test_maps_are_drawn_for_the_first_six_layers_and_it_is_said(dims):
    result = made.layer_attributions(dims)
    figure = drawn("layer_attributions_gradcam", result)
    titles = [a.get_title("left") for a in figure.axes if a.get_title("left")]
    assert len(titles) == 6
    assert titles[0].startswith("block.0 (Conv")
    assert "The first 6 of 8 layers are shown." in page.DRAWINGS[0].caption(result)
    if dims == 2:
        low, high = figure.axes[0].collections[0].get_clim()
        assert low == -high < 0


def test_maps_of_classes_run_from_zero():
    result = dataclasses.replace(made.layer_attributions(2), signed=False)
    figure = drawn("layer_attributions_gradcam", result)
    assert figure.axes[0].collections[0].get_clim()[0] == 0
    assert "against it" not in page.DRAWINGS[0].caption(result)


def test_units_are_a_table_and_bars():
    result = made.layer_attributions()
    (table,) = [b for b in page.blocks(result) if isinstance(b, Table)]
    assert [r[4] for r in table.rows] == ["98 %", "–"], "no change, no share"
    figure = drawn("layer_attributions_conductance", result)
    assert len([a for a in figure.axes if a.get_title("left")]) == 1, "what carries nothing has no bars"
    assert len(figure.axes[0].get_yticks()) == 12


def test_rollout_has_its_matrix_and_what_places_receive():
    result = made.layer_attributions()
    figure = drawn("layer_attributions_rollout", result)
    assert len(figure.axes[1].patches) == 9
    assert "causal" in page.DRAWINGS[2].caption(result)


def test_nothing_is_drawn_where_nothing_is_known():
    result = dataclasses.replace(made.layer_attributions(), gradcam=(), conductance=(), rollout=None)
    assert [drawn(d.name, result) for d in page.DRAWINGS] == [None] * 3
    assert all(isinstance(d.caption(result), str) for d in page.DRAWINGS)
    assert [b.name for b in page.blocks(result) if isinstance(b, Plot)] == [d.name for d in page.DRAWINGS]


def test_the_result_is_strict_json():
    values = plain(made.layer_attributions())
    assert values["conductance"][1]["share"] is None


def test_every_picture_becomes_a_png():
    for drawing in page.DRAWINGS:
        with style.themed(style.DARK):
            assert style.png(drawing.draw(made.layer_attributions(), style.DARK)).startswith(b"\x89PNG"), (
                drawing.name
            )
