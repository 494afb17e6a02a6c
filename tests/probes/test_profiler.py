"""Profiler windows: what they say, when they open, and that the host's own profiler is never disturbed."""

from __future__ import annotations

import json
import stat

import pytest
import torch
from torch import nn
from torch.nn import functional

from torchwatch import WatchConfig, Watcher
from torchwatch.probes._profile import _kind
from torchwatch.records import Layout, Profile, Record
from torchwatch.runfile import read_records


class Net(nn.Module):
    """A wide layer, a narrow one, and a call that can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.act, self.head = nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 4)
        self.fail_at = -1
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.wide(x))
        self.calls += 1
        if self.calls == self.fail_at:
            raise ValueError("mine")
        return self.head(y)


def train(path, steps: int = 12, *, inside=None, fail_at: int = -1, **options) -> tuple[list[Record], Net]:
    torch.manual_seed(0)
    model = Net()
    model.fail_at = fail_at
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Watcher(model, path, config=WatchConfig(terminal=False, energy=False, **options)) as watch:
        for number in range(1, steps + 1):

            def step() -> None:
                loss = functional.cross_entropy(model(torch.randn(32, 64)), torch.zeros(32, dtype=torch.long))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)

            try:
                inside(watch, number, step) if inside is not None else step()
            except ValueError:
                optimizer.zero_grad()
    return list(read_records(path)), model


def profiles(records: list[Record]) -> list[Profile]:
    return [r for r in records if isinstance(r, Profile)]


def test_windows_open_as_often_as_asked_and_name_the_layers(tmp_path) -> None:
    records, _ = train(tmp_path / "run.jsonl", 12, profile_every=5, profile_steps=2)
    found = profiles(records)
    assert [(p.step, p.data["steps"]) for p in found] == [(5, 2), (10, 2)]
    data = found[0].data
    layers = {layer["name"]: layer for layer in data["layers"]}
    assert set(layers) == {"wide", "act", "head"}
    assert sum(layer["share"] for layer in layers.values()) == pytest.approx(1, abs=1e-3)
    assert all(layer["forward_s"] > 0 for layer in layers.values())
    assert all(layer["backward_s"] > 0 for layer in layers.values())
    assert data["forward_s"] > 0
    assert data["backward_s"] >= sum(layer["backward_s"] for layer in layers.values())
    assert 0 < data["backward_share"] < 1
    assert data["operators"]["matmul"] > 0
    assert "aten::addmm" in {entry["name"] for entry in data["top"]}


def test_none_is_opened_unasked(tmp_path) -> None:
    records, _ = train(tmp_path / "run.jsonl", 12)
    assert not profiles(records)
    layout = next(r for r in records if isinstance(r, Layout))
    assert layout.coverage["profiler"].startswith("off: set profile_every")


def test_a_body_is_profiled_by_hand(tmp_path) -> None:
    def inside(watch: Watcher, number: int, step) -> None:
        if number == 4:
            with watch.profile():
                step()
        else:
            step()

    (found,) = profiles(train(tmp_path / "run.jsonl", 6, inside=inside)[0])
    assert (found.step, found.data["steps"]) == (4, 1)
    assert found.data["optimizer_s"] > 0


def test_the_chrome_trace_is_written_on_request_and_private(tmp_path) -> None:
    folder = tmp_path / "traces"
    records, _ = train(tmp_path / "run.jsonl", 8, profile_every=5, profile_steps=1, profile_trace=str(folder))
    (path,) = folder.iterdir()
    assert profiles(records)[0].data["trace"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert "torchwatch::wide" in names


def test_the_hosts_profiler_is_never_disturbed(tmp_path) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as theirs:
        records, _ = train(tmp_path / "run.jsonl", 8, profile_every=2, profile_steps=1)
    assert not profiles(records)
    said = [r.coverage["profiler"] for r in records if isinstance(r, Layout)]
    assert said[-1] == "a window was left out: a profiler of the host's was running"
    names = [event.name for event in theirs.events()]
    assert names.count("aten::addmm") >= 16  # its own capture is whole; our kernels are in it too
    assert not any(name.startswith("torchwatch::") for name in names)


def test_a_forward_pass_that_fails_in_a_window_leaves_nothing_open(tmp_path) -> None:
    records, model = train(tmp_path / "run.jsonl", 12, fail_at=6, profile_every=5, profile_steps=3)
    assert model.calls == 12
    (first, *_) = profiles(records)
    assert {layer["name"] for layer in first.data["layers"]} == {"wide", "act", "head"}
    assert not torch.autograd.profiler._is_profiler_enabled
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_window_that_is_open_at_the_end_is_closed(tmp_path) -> None:
    train(tmp_path / "run.jsonl", 6, profile_every=5, profile_steps=100)
    assert not torch.autograd.profiler._is_profiler_enabled
    assert not torch.nn.modules.module._global_forward_hooks


def test_training_under_the_profiler_is_bitwise_the_same(tmp_path) -> None:
    _, plain = train(tmp_path / "plain.jsonl", 12)
    _, profiled = train(tmp_path / "profiled.jsonl", 12, profile_every=3, profile_steps=2)
    for one, other in zip(plain.parameters(), profiled.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matmul"),
        ("aten::bmm", "matmul"),
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::convolution_backward", "convolution"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_layer_norm", "normalisation"),
        ("aten::gelu_backward", "activation"),
        ("aten::copy_", "memory"),
        ("aten::t", "memory"),
        ("aten::sum", "reduction"),
        ("aten::add", "elementwise and other"),
        ("aten::sqrt", "elementwise and other"),
        ("aten::mul", "elementwise and other"),
        ("aten::_log_softmax", "softmax and loss"),
    ],
)
def test_operators_are_told_apart(name: str, kind: str) -> None:
    assert _kind(name) == kind
