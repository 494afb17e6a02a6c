"""The bench of the ablation: its rivals do the same work."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.autopsy import ablation as bench
from torchwatch.examinations.case import Case, Options
from torchwatch.results import AutopsyInputs


def test_the_loop_and_both_ways_of_ours_measure_the_same(monkeypatch):
    monkeypatch.setattr(bench, "CHANNELS", 95)
    model, (x, y) = bench.model_of("larger", "cpu"), bench.data(24)
    case = Case(AutopsyInputs(model, (x, y)), Options(repeats=1))
    errors = bench.loop(model, DataLoader(TensorDataset(x, y), batch_size=8), "cpu")
    results = [bench.ours(case, whole=whole) for whole in (True, False)]
    assert len(errors) == 95 + 10 + 1
    for result in results:
        assert [len(p.elements) for p in result.parts] == [95, 10, 5]
        assert result.baseline == pytest.approx(errors[-1], rel=1e-4)
    assert results[0].shortcut == ""
    assert results[0].importance.tolist() == pytest.approx(results[1].importance.tolist(), rel=1e-2, abs=1e-5)


def test_the_floor_is_plain_passes(monkeypatch):
    sizes = []
    model = torch.nn.Module()
    model.forward = lambda x: sizes.append(len(x))
    bench.floor(model, torch.zeros(10, 1, 1), passes=3, batch=4)
    assert sizes == [4, 4, 2] * 3
    sizes.clear()
    bench.floor(model, torch.zeros(10, 1, 1), passes=5, batch=30)
    assert sizes == [30, 30]
