"""Checkpoints: every usual form loads whole; all else is refused in one sentence and changes nothing."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchwatch.errors import UsageError
from torchwatch.examinations.checkpoints import load_checkpoint

Weights = dict[str, Tensor]


def net(width: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def same(model: nn.Module, weights: Weights) -> bool:
    own = model.state_dict()
    return set(own) == set(weights) and all(torch.equal(own[k], v) for k, v in weights.items())


def saved(folder: Path, content: Any, name: str = "best.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + k: v for k, v in weights.items()}


FORMS: dict[str, Any] = {
    "plain": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model": lambda w: {"model": w, "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda w: {"model_state_dict": w, "loss": torch.tensor(0.5)},
    "no config": lambda w: {"model_state_dict": w, "config": None},
    "nested": lambda w: {"model": {"state_dict": w}},
    "data parallel": lambda w: prefixed(w, "module."),
    "compiled": lambda w: {"state_dict": prefixed(w, "_orig_mod.")},
    "both": lambda w: {"model": prefixed(w, "module._orig_mod.")},
    "lightning": lambda w: {
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**prefixed(w, "net."), "criterion.weight": torch.ones(2)},
        "hyper_parameters": {"lr": 1e-3},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_loads_every_usual_form(tmp_path: Path, form: str) -> None:
    weights = net(seed=1).state_dict()
    model = net()
    loaded = load_checkpoint(model, saved(tmp_path, FORMS[form](weights)))
    assert same(model, weights)
    assert loaded.tensors == len(weights)
    assert loaded.has_config == (form == "lightning")
    if form == "lightning":
        assert (loaded.form, loaded.key, loaded.prefix) == ("Lightning", "state_dict", "net.")
        assert loaded.left_out == ("criterion.weight",)
        assert "1 other entries were left out" in str(loaded)


def test_loads_into_wrapped_models(tmp_path: Path) -> None:
    weights = net(seed=1).state_dict()
    inner = net()
    load_checkpoint(nn.DataParallel(inner), saved(tmp_path, prefixed(weights, "_orig_mod.")))
    assert same(inner, weights)


def test_a_model_with_a_module_named_module_keeps_it(tmp_path: Path) -> None:
    model, other = nn.Sequential(), nn.Sequential()
    model.add_module("module", net())
    other.add_module("module", net(seed=1))
    assert load_checkpoint(model, saved(tmp_path, other.state_dict())).prefix == ""
    assert same(model, other.state_dict())


def test_loads_safetensors_and_folders_of_parts(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = net(seed=1).state_dict()
    first = {k: v for i, (k, v) in enumerate(weights.items()) if i % 2}
    second = {k: v for k, v in weights.items() if k not in first}
    save_file(first, tmp_path / "model-1.safetensors")
    save_file(second, tmp_path / "model-2.safetensors")
    parts = {k: "model-1.safetensors" if k in first else "model-2.safetensors" for k in weights}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    model = net()
    assert load_checkpoint(model, tmp_path).form == "safetensors"
    assert same(model, weights)
    save_file(weights, tmp_path / "model.safetensors")
    model = net()
    assert load_checkpoint(model, tmp_path / "model.safetensors").tensors == len(weights)
    assert same(model, weights)


def test_tied_weights_and_buffers_that_are_not_saved_are_no_mismatch(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight
            self.register_buffer("places", torch.arange(4), persistent=False)

    content = {"embed.weight": torch.ones(5, 3), "places": torch.arange(4)}
    model = Tied()
    load_checkpoint(model, saved(tmp_path, content))
    assert torch.equal(model.head.weight.detach(), torch.ones(5, 3))


def test_a_mismatch_names_missing_unexpected_and_shapes_and_changes_nothing(tmp_path: Path) -> None:
    weights = net(width=4, seed=1).state_dict()
    weights["extra.weight"] = weights.pop("2.weight")
    weights |= {f"more.{i}": torch.ones(1) for i in range(7)}
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UsageError) as raised:
        load_checkpoint(model, saved(tmp_path, {"state_dict": weights, "config": None}))
    text = str(raised.value)
    assert "1 missing: 2.weight" in text
    assert "8 unexpected: extra.weight, more.0, more.1, more.2, more.3 …" in text
    assert "0.weight is (4, 2) in the checkpoint and (3, 2) in the model" in text
    assert "which the checkpoint does not hold" in text
    assert "\n" not in text
    assert same(model, before)


def test_pickles_are_refused_unless_trusted(tmp_path: Path) -> None:
    weights = net(seed=1).state_dict()
    path = saved(tmp_path, {"state_dict": weights, "args": argparse.Namespace(lr=1)})
    model = net()
    with pytest.raises(UsageError, match=r"more than weights \(argparse.Namespace\).*--trust-checkpoint"):
        load_checkpoint(model, path)
    assert load_checkpoint(model, path, trust=True).has_config
    assert same(model, weights)
    whole = saved(tmp_path, net(seed=1), "whole.pt")
    with pytest.raises(UsageError, match="--trust-checkpoint"):
        load_checkpoint(net(), whole)
    model = net()
    assert load_checkpoint(model, whole, trust=True).form == "pickled model"
    assert same(model, weights)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_refused_pickle_is_not_executed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "bomb.pt"
    if how == "torch":
        torch.save({"state_dict": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}))
    with pytest.raises(UsageError, match="--trust-checkpoint"):
        load_checkpoint(net(), path)


BROKEN = {"garbage": b"hello world, no checkpoint", "empty": b"", "cut": None}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("trust", [False, True])
def test_broken_files_are_said_to_be_broken(tmp_path: Path, kind: str, trust: bool) -> None:
    content = BROKEN[kind]
    if content is None:
        content = saved(tmp_path, net().state_dict()).read_bytes()[:900]
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as a checkpoint") as raised:
        load_checkpoint(net(), path, trust=trust)
    assert "\n" not in str(raised.value)


def test_broken_safetensors(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00")
    with pytest.raises(UsageError, match="cannot be read as a checkpoint"):
        load_checkpoint(net(), tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"epoch": 3}, r"holds no state dict \(its keys: epoch\)"),
        ({}, r"holds no state dict \(its keys: none\)"),
        ({"state_dict": {}}, "holds no state dict"),
        ([1, 2], "holds list, not a state dict"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_checkpoint(net(), saved(tmp_path, content))


def test_missing_files_and_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no checkpoint"):
        load_checkpoint(net(), tmp_path / "none.pt")
    with pytest.raises(UsageError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_checkpoint(net(), tmp_path)
