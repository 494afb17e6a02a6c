"""Which passes and calls the statistics of layer outputs count, and what they say of planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes.activations import batch_size
from torchwatch.records import Layout, is_missing


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant = net(), reentrant

    def forward(self, x):
        return checkpoint(self.inner, x.requires_grad_(), use_reentrant=self.reentrant)


def train(model: nn.Module, steps: int, batch: int = 64, between=lambda: None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)

    def body(watch) -> None:
        for _ in range(steps):
            x = torch.randn(batch, 6, generator=generator)
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
            between()

    return body


def column(records, name: str) -> np.ndarray:
    return np.array([s.activations[name] for s in steps_of(records) if s.activations is not None])


def layer_names(records) -> list[str]:
    return [layer.name for layer in next(r for r in records if isinstance(r, Layout)).layers]


def test_the_first_layout_has_call_order_and_shapes(tmp_path) -> None:
    model = net()
    records = record(model, train(model, 2), tmp_path / "r.jsonl")
    layers = next(r for r in records if isinstance(r, Layout)).layers
    assert [(layer.order, layer.inputs, layer.outputs) for layer in layers] == [
        (0, [[64, 6]], [[64, 32]]),
        (1, [[64, 32]], [[64, 32]]),
        (2, [[64, 32]], [[64, 3]]),
    ]


def test_dead_units_are_those_silent_for_the_whole_window(tmp_path) -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[:8] = 0
        model[0].bias[:8] = -1  # 8 of 32 units can never be active
    records = record(model, train(model, 12), tmp_path / "r.jsonl")
    dead = column(records, "dead_fraction")
    relu, last = layer_names(records).index("1"), layer_names(records).index("2")
    assert is_missing(dead[6].astype(np.float32))[relu]  # 448 samples: not enough to say
    assert dead[11, relu] == pytest.approx(8 / 32)
    assert dead[11, last] == pytest.approx(8 / 32)  # the inputs of the next Linear tell the same
    zero = column(records, "zero_fraction")
    assert zero[11, relu] > 0.4  # sparsity is not death


def test_a_unit_that_wakes_up_is_not_dead(tmp_path) -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = -1
    wake = iter(range(100))

    def between() -> None:
        if next(wake) == 14:
            with torch.no_grad():
                model[0].bias[0] = 1

    records = record(model, train(model, 20, between=between), tmp_path / "r.jsonl")
    dead = column(records, "dead_fraction")[:, layer_names(records).index("1")]
    assert dead[14] == pytest.approx(1 / 32)
    assert dead[15] == 0


def test_nan_is_not_silence(tmp_path) -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[:] = float("nan")
    records = record(model, train(model, 10), tmp_path / "r.jsonl")
    relu = layer_names(records).index("1")
    assert column(records, "dead_fraction")[9, relu] == 0
    assert column(records, "nonfinite")[9, relu] == 64 * 32


def test_evaluation_rollouts_and_discarded_losses_do_not_count(tmp_path) -> None:
    model = net()
    big = torch.full((64, 6), 1000.0)

    def between() -> None:
        with torch.no_grad():
            model(big)
        model(big).sum()  # a loss that is thrown away
        model.eval()
        with torch.inference_mode():
            model(big)
        model.train()

    records = record(model, train(model, 5, between=between), tmp_path / "r.jsonl")
    assert column(records, "absmax")[:, 0].max() < 10


def test_checkpointed_passes_count_once(tmp_path) -> None:
    for reentrant in (True, False):
        whole = Checkpointed(reentrant)
        records = record(whole, train(whole, 9), tmp_path / f"{reentrant}.jsonl")
        dead = column(records, "dead_fraction")
        # 8 steps of 64 samples fill the window of 512; counted twice it would be full after 4.
        assert is_missing(dead[6].astype(np.float32)).all()
        assert not is_missing(dead[7].astype(np.float32)).all()


def test_a_frozen_front_counts_with_the_pass_it_feeds(tmp_path) -> None:
    model = net()
    model[0].requires_grad_(requires_grad=False)
    records = record(model, train(model, 3), tmp_path / "r.jsonl")
    assert np.isfinite(column(records, "mean")[:, :2]).all()


def test_sampling_follows_the_config(tmp_path) -> None:
    model = net()
    config = WatchConfig(activations_every=4, dense_steps=2, terminal=False)
    records = record(model, train(model, 12), tmp_path / "r.jsonl", config=config)
    assert [s.step for s in steps_of(records) if s.activations is not None] == [1, 2, 4, 8, 12]
    assert EVERY_STEP.activations_every == 1


def test_odd_outputs_are_left_alone(tmp_path) -> None:
    class Odd(nn.Module):
        def forward(self, x):
            return {"i": torch.ones(3, dtype=torch.long), "e": x[:0], "list": [None, (x.sum(), "text")]}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.last = Odd(), nn.Linear(6, 3)

        def forward(self, x):
            self.odd(x)
            return self.last(x)

    model = Model()
    records = record(model, train(model, 3), tmp_path / "r.jsonl")
    assert not [r for r in records if r.kind == "note"]
    assert np.isfinite(column(records, "mean")[0, layer_names(records).index("last")])


def test_batch_size_of_nested_inputs() -> None:
    x = torch.zeros(7, 2)
    assert batch_size((x, torch.zeros(3))) == 7
    assert batch_size([{"ids": torch.zeros(5, dtype=torch.long)}]) == 5
    assert batch_size(("text", None)) is None
    assert batch_size(torch.zeros(())) is None
