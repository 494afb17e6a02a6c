"""``torchwatch data`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers_cli import call

HEAD = """\
import torch
from torch import nn
torch.manual_seed(0)
x, y = torch.randn(120, 6), torch.randn(120, 1)
"""


def recipe(folder: Path, body: str) -> str:
    (folder / "train.py").write_text(HEAD + body, encoding="utf-8")
    return f"{folder}/train.py:build"


GOOD = "def build():\n    return nn.Linear(6, 1), (x, y)\n"
LEAK = "def build():\n    return {'model': nn.Linear(6, 1), 'data': (x, y), 'train_data': (x, y)}\n"
BROKEN = "def build():\n    return nn.Linear(5, 1), (x, y)\n"


def test_sound_data_give_exit_code_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, "data", recipe(tmp_path, GOOD))
    assert (result.code, result.err) == (0, "")
    assert "120 of data: regression, input 6" in result.out
    assert "there are no `train_data`" in result.out


def test_a_leak_gives_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, "data", recipe(tmp_path, LEAK))
    assert result.code == 1
    assert "critical  120 of 120 samples (100.0%) are in the training data too." in result.out


def test_json_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "found"
    result = call(monkeypatch, "data", recipe(tmp_path, LEAK), "--json", "--samples", 100, "--out", out)
    assert result.code == 1
    found = json.loads(result.out)
    assert found["copies"]["across"] == 100
    assert found["about"]["samples"] == 100
    assert found["note"] is None
    names = sorted(p.name for p in out.iterdir())
    assert names == [
        "data_quality.json",
        "data_quality_channels.png",
        "data_quality_lags.png",
        "data_quality_quantiles.png",
        "data_quality_targets.png",
    ]
    assert json.loads((out / "data_quality.json").read_text())["data_quality"]["copies"]["across"] == 100


@pytest.mark.parametrize(
    ("targets", "task"),
    [("y", "regression"), ("torch.arange(120) % 4", "multiclass"), ("torch.ones(120, 7).long()", "token")],
)
def test_a_model_that_does_not_run_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: str, task: str
) -> None:
    result = call(
        monkeypatch, "data", recipe(tmp_path, BROKEN.replace("(x, y)", f"(x, {targets})")), "--json"
    )
    found = json.loads(result.out)
    assert "without the model, which does not run on them" in found["note"]
    assert "RuntimeError" in found["note"]
    assert found["task"] == task


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def built():\n    pass\n", "did you mean 'built'?"),
        ("def build():\n    return 1\n", "returned int"),
        ("def build():\n    return nn.Linear(6, 1), []\n", "the data hold no samples"),
        ("def build():\n    return nn.Linear(6, 1), (1 / 0 for _ in x)\n", "ZeroDivisionError"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    result = call(monkeypatch, "data", recipe(tmp_path, body))
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert "Traceback" not in result.err


def test_text_of_the_data_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def build():\n    x[:, 1] = 0\n    names = ['\\x1b[31mred'] * 6\n"
    body += "    return {'model': nn.Linear(6, 1), 'data': (x, y), 'channel_names': names}\n"
    result = call(monkeypatch, "data", recipe(tmp_path, body), terminal=True)
    assert "never change" in result.out
    assert "\x1b[31mred" not in result.out
