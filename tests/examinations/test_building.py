"""``FILE.py:FUNCTION``: what is taken, and one sentence for each thing that is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from torchwatch.errors import UsageError
from torchwatch.examinations.building import build
from torchwatch.results import AutopsyInputs

HEAD = """\
import torch
from torch import nn
from torchwatch.results import AutopsyInputs

DATA = (torch.zeros(4, 2), torch.zeros(4, 1))
"""


def written(folder: Path, body: str, name: str = "train.py") -> str:
    path = folder / name
    path.write_text(HEAD + body, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "returned",
    [
        "AutopsyInputs(nn.Linear(2, 1), DATA, task='regression')",
        "{'model': nn.Linear(2, 1), 'data': DATA, 'task': 'regression'}",
        "(nn.Linear(2, 1), DATA)",
    ],
)
def test_takes_inputs_a_dict_or_a_pair(tmp_path: Path, returned: str) -> None:
    inputs = build(written(tmp_path, f"def build():\n    return {returned}\n") + ":build")
    assert isinstance(inputs, AutopsyInputs)
    assert isinstance(inputs.model, nn.Linear)
    assert inputs.task in ("regression", "auto")
    assert inputs.data[0].shape == (4, 2)


def test_finds_neighbours_and_leaves_path_and_arguments_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "neighbour_of_a_build.py").write_text("WIDTH = 3\n", encoding="utf-8")
    body = (
        "import argparse\n"
        "from neighbour_of_a_build import WIDTH\n"
        "arguments = argparse.ArgumentParser()\n"
        "arguments.add_argument('--lr', type=float, default=0.5)\n"
        "lr = arguments.parse_args().lr\n"
        "def build():\n    return nn.Linear(2, WIDTH), DATA\n"
        "if __name__ == '__main__':\n    raise RuntimeError('trained')\n"
    )
    monkeypatch.setattr(sys, "argv", ["torchwatch", "data", "--samples", "5"])
    path, arguments = list(sys.path), list(sys.argv)
    assert build(written(tmp_path, body) + ":build").model.out_features == 3
    assert (sys.path, sys.argv) == (path, arguments)
    sys.modules.pop("neighbour_of_a_build")


SAYS = {
    "def build():\n    return 3\n": r"build\(\) of .*train.py returned int: it must return AutopsyInputs",
    "def build():\n    return None\n": "returned NoneType",
    "def build():\n    return nn.Linear(2, 1), DATA, DATA\n": "returned tuple of 3",
    "def build():\n    return nn.Linear, DATA\n": "returned the class Linear as the model",
    "def build():\n    return 'model', DATA\n": "returned str as the model",
    "def build():\n    return nn.Linear(2, 1), None\n": "returned None as the data",
    "def build():\n    return {'model': nn.Linear(2, 1)}\n": "a dict without 'data'",
    "def build():\n    return {'modle': 1}\n": r"the key 'modle' \(did you mean 'model'\?\)",
    "def build(config):\n    return config\n": "without arguments but needs config: give defaults",
    "def built():\n    return 1\n": r"has no function 'build' \(did you mean 'built'\?\)",
    "def something_else():\n    return 1\n": "has no function 'build'; it defines something_else",
    "build = 3\n": "'build' of .* is int, not a function",
    "def build(:\n": "line 6 of .*train.py is no valid Python",
    "def build():\n    raise KeyError('lost')\n": r"raised KeyError: 'lost' \(line 7 of train.py\)",
    "import no_such_package_at_all\n": r"importing .* raised ModuleNotFoundError.*\(line 6 of train.py\)",
    "import sys\nsys.exit(2)\n": r"ended the program \(exit code 2\)",
    "def build():\n    return torch.zeros(2) @ torch.zeros(3)\n": r"raised RuntimeError.*line 7 of train.py",
}


@pytest.mark.parametrize("body", SAYS)
def test_says_in_one_sentence_what_is_wrong(tmp_path: Path, body: str) -> None:
    path = list(sys.path)
    with pytest.raises(UsageError, match=SAYS[body]) as raised:
        build(written(tmp_path, body) + ":build")
    assert "\n" not in str(raised.value)
    assert sys.path == path


@pytest.mark.parametrize("spec", ["train.py", ":build", "train.py:", "train.py:not a name", ""])
def test_asks_for_file_and_function(spec: str) -> None:
    with pytest.raises(UsageError, match=r"write FILE.py:FUNCTION"):
        build(spec)


def test_names_the_nearest_file(tmp_path: Path) -> None:
    written(tmp_path, "")
    with pytest.raises(UsageError, match=r"there is no file .*trian.py \(did you mean 'train.py'\?\)"):
        build(f"{tmp_path}/trian.py:build")


def test_a_failed_import_leaves_no_module_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build(written(tmp_path, "raise ValueError('no')\n", "broken_recipe.py") + ":build")
    assert not [name for name in sys.modules if "broken_recipe" in name]


def test_ctrl_c_passes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(written(tmp_path, "def build():\n    raise KeyboardInterrupt\n") + ":build")
