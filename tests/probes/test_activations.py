"""Statistics of layer outputs against a float64 reference, and which passes count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes._statistics import peaks, pooled, summary
from torchwatch.probes.activations import batch_size
from torchwatch.records import Layout, is_missing

SHAPES = [(8,), (4, 6), (1, 5), (3, 2, 7), (2, 3, 4, 5), (2, 3, 2, 2, 2)]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    layout=st.sampled_from(["plain", "channels_last", "strided", "expanded"]),
    holes=st.sampled_from([None, float("nan"), float("inf"), float("-inf")]),
)
def test_statistics_equal_a_float64_reference(shape, seed, dtype, layout, holes) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator).relu().to(dtype)
    if layout == "channels_last" and tensor.dim() == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    elif layout == "strided":
        tensor = tensor.repeat_interleave(2, -1)[..., ::2]
    elif layout == "expanded" and tensor.dim() > 1:
        tensor = tensor[:, :1].expand(*tensor.shape)
    if holes is not None:
        tensor = tensor.clone()
        tensor[(0,) * tensor.dim()] = holes
    numbers = summary(tensor).double().numpy()
    batch = tensor.shape[0]
    found = pooled([(tensor.numel(), batch, numbers)])
    exact = tensor.double()
    bad = ~torch.isfinite(exact)
    assert found["nonfinite"] == int(bad.sum())
    if holes is None:
        near = {"rtol": 2e-5, "atol": 1e-6}
        np.testing.assert_allclose(found["mean"], exact.mean(), **near)
        np.testing.assert_allclose(found["rms"], exact.square().mean().sqrt(), **near)
        np.testing.assert_allclose(found["std"], exact.std(correction=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found["absmax"], exact.abs().max(), **near)
        np.testing.assert_allclose(found["zero_fraction"], (exact == 0).double().mean(), atol=1e-6)
        if batch > 1 and exact.square().sum() > 0:
            spread = exact.reshape(batch, -1).var(0, correction=1).mean().sqrt()
            np.testing.assert_allclose(
                found["batch_std"], spread / exact.square().mean().sqrt(), rtol=1e-2, atol=2e-3
            )
    else:
        assert not np.isfinite(found["absmax"])
        assert not np.isfinite(found["mean"])


def test_peaks_are_per_channel_or_per_feature() -> None:
    image = torch.zeros(2, 3, 4, 4)
    image[1, 2, 3, 3] = -5
    assert peaks(image, channels_first=False).tolist() == [0, 0, 5]
    tokens = torch.zeros(2, 7, 4)
    tokens[0, 6, 1] = 2
    assert peaks(tokens, channels_first=False).tolist() == [0, 2, 0, 0]
    assert peaks(tokens.transpose(1, 2), channels_first=True).tolist() == [0, 2, 0, 0]
    assert peaks(torch.zeros(3), channels_first=True) is None


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
