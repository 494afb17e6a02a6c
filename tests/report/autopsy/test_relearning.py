import pytest

from torchwatch.report import style
from torchwatch.report.autopsy import page_of
from torchwatch.report.document import Table, Text
from torchwatch.results.relearning import Attempt, Relearning


def attempt(name, skill, gain):
    return Attempt(
        name,
        f"the {name}",
        1 - skill,
        0.5,
        skill,
        (skill - 0.1, skill + 0.1),
        gain,
        (gain - 0.1, gain + 0.1),
        40,
    )


def result(memorised=0.97):
    attempts = (
        attempt("patient", 0.1, 0.0),
        attempt("restarted", 0.7, 0.6),
        attempt("reference", 0.15, 0.05),
    )
    return Relearning("squared error", 1.02, attempts, memorised, 32, 1500, 500, own_split=False)


def test_the_table_marks_who_is_clearly_better():
    blocks = page_of("relearning").blocks(result())
    (table,) = [b for b in blocks if isinstance(b, Table)]
    assert [row[3] for row in table.rows] == ["–", "+0.600 *", "+0.050"]
    assert any(isinstance(b, Text) and "97%" in b.text for b in blocks)


def test_what_was_not_tried_is_not_said():
    blocks = page_of("relearning").blocks(result(float("nan")))
    assert not any(isinstance(b, Text) and "heart" in b.text for b in blocks)


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK])
def test_the_picture_is_drawn(theme):
    (drawing,) = page_of("relearning").DRAWINGS
    with style.themed(theme):
        figure = drawing.draw(result(), theme)
        assert [t.get_text() for t in figure.axes[0].get_yticklabels()][-1] == "the patient"
    assert "1 learner is clearly better" in drawing.caption(result())
