from __future__ import annotations

import pytest

from torchwatch.report.document import shortened, spans


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", [(False, "plain")]),
        ("call `step()` now", [(False, "call "), (True, "step()"), (False, " now")]),
        ("`a` and a lone ` tick", [(True, "a"), (False, " and a lone ` tick")]),
        ("```", [(False, "`")]),
        ("", []),
    ],
)
def test_pairs_of_backticks_are_code_and_a_lone_one_is_text(text: str, parts: list[tuple[bool, str]]):
    assert spans(text) == parts


def test_shortened_keeps_both_ends():
    assert shortened("short") == "short"
    long = shortened("a" * 500 + "z" * 500)
    assert len(long) == 100
    assert long.startswith("aa")
    assert long.endswith("zz")
