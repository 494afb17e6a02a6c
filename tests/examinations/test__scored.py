from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.helpers_scored import case_of, noise
from torchwatch.examinations._scored import chunk_of, codes_of, output_names, scored, units


def test_errors_are_those_of_the_case():
    p, y = noise(30, 3), noise(30, 3, seed=1)
    case = case_of(p, y)
    np.testing.assert_allclose(scored(case).error, case.errors(case.outputs).numpy())
    logits = torch.tensor(noise(30, 4))
    case = case_of(logits, torch.arange(30) % 4)
    np.testing.assert_allclose(scored(case).error, case.errors(case.outputs).numpy())
    case = case_of(noise(30, 2), (noise(30, 2, seed=1) > 0).astype(float))
    np.testing.assert_allclose(scored(case).error, case.errors(case.outputs).numpy())


def test_tokens_are_scored_in_chunks_as_they_are_at_once(monkeypatch):
    logits = torch.tensor(noise(10, 6, 5))
    targets = torch.randint(5, (10, 6), generator=torch.Generator().manual_seed(0))
    targets[2] = -100
    whole = scored(case_of(logits, targets))
    monkeypatch.setattr("torchwatch.examinations._scored._LARGEST_OUTPUT", 61)
    parts = scored(case_of(logits, targets))
    for name in ("sample", "true", "predicted", "confidence", "log_likelihood", "error"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert np.isnan(whole.error[2])
    expected = functional.cross_entropy(logits.movedim(-1, 1), targets, reduction="none").sum(1) / 6
    np.testing.assert_allclose(whole.error[:2], expected[:2])


def test_a_case_is_scored_once():
    case = case_of(noise(9, 1), noise(9, 1, seed=1))
    assert scored(case) is scored(case)


def test_a_soft_label_splits_its_likelihood():
    case = case_of(np.full((4, 1), -1.0), np.full((4, 1), 0.3), task="binary")
    known = scored(case)
    yes = 1 / (1 + np.e)
    np.testing.assert_allclose(known.log_likelihood, 0.3 * np.log(yes) + 0.7 * np.log(1 - yes), rtol=1e-6)
    assert (known.true == 0).all()


def test_units_are_groups_where_there_are_ten():
    few = case_of(noise(20, 1), noise(20, 1), groups=[i % 9 for i in range(20)])
    many = case_of(noise(20, 1), noise(20, 1), groups=[i % 10 for i in range(20)])
    assert units(few)[1] == "sample"
    np.testing.assert_array_equal(units(few)[0], np.arange(20))
    assert units(many)[1] == "group"
    np.testing.assert_array_equal(units(many)[0], np.arange(20) % 10)


def test_codes_follow_appearance():
    np.testing.assert_array_equal(codes_of(["b", "a", "b", None]), [0, 1, 0, 2])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 1), ("output",)),
        ((6, 2), ("output 0", "output 1")),
        ((6, 1, 2), ("output [0, 0]", "output [0, 1]")),
    ],
)
def test_outputs_are_named_by_their_place(shape, expected):
    case = case_of(noise(*shape), noise(*shape, seed=1))
    assert output_names(case, len(expected)) == expected


def test_a_large_output_makes_small_chunks():
    case = case_of(noise(9, 1), noise(9, 1))
    assert chunk_of(case, 1) == 256
    assert chunk_of(case, 50_000 * 1024) == 1
