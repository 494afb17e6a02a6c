"""Histograms of gradients and activations: only where wanted, only of what was trained on."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes._buckets import counts, histogram
from torchwatch.records import Histogram, Layout

ON = WatchConfig(activations_every=2, dense_steps=0, budget=None, histograms=True, terminal=False)
X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))


def train(model, tmp_path, steps=4, config=ON, loss_of=lambda m: m(X).square().mean(), noted=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(watch) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(model).backward()
            if noted is not None:
                noted.append((copy.deepcopy(model), [p.grad.clone() for p in model.parameters()]))
            optimizer.step()
            watch.log(loss=1.0)

    return record(model, body, tmp_path / "r.jsonl", config=config)


def histograms(records) -> list[Histogram]:
    return [r for r in records if isinstance(r, Histogram)]


def of(tensor: torch.Tensor) -> dict:
    return histogram(counts(tensor.detach()).double().numpy())


def test_gradients_and_activations_of_sampled_steps(tmp_path) -> None:
    model, noted = net(), []
    records = train(model, tmp_path, noted=noted)
    found = histograms(records)
    assert [(h.step, h.time_s) for h in found] == [
        (s.step, s.time_s) for s in steps_of(records) if s.step % 2 == 0
    ]
    before, gradients = noted[1]
    assert found[0].data["gradients"] == {
        name: of(gradient) for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True)
    }
    first = before[0](X)
    outputs = {"0": first, "1": first.relu(), "2": before[2](first.relu())}
    assert found[0].data["activations"] == {name: of(output) for name, output in outputs.items()}


def test_evaluation_and_discarded_passes_do_not_count_and_accumulation_adds_up(tmp_path) -> None:
    def loss_of(model):
        with torch.no_grad():
            model(X * float("nan"))
        model(X * float("nan"))  # forgot no_grad
        return model(X[:10]).square().mean() + model(X[10:]).square().mean()

    found = histograms(train(net(), tmp_path, loss_of=loss_of, steps=2))[0].data["activations"]
    assert [(h["nonfinite"], sum(h["counts"])) for h in found.values()] == [(0, 100), (0, 100), (0, 20)]


def test_a_second_optimizer_adds_its_parameters(tmp_path) -> None:
    model = net()
    optimizers = [torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2)]

    def body(watch) -> None:
        for _ in range(4):
            model(X).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

    found = histograms(record(model, body, tmp_path / "r.jsonl", config=ON))
    assert set(found[0].data["gradients"]) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_off_by_default(tmp_path) -> None:
    records = train(net(), tmp_path, config=EVERY_STEP)
    assert histograms(records) == []
    assert next(r for r in records if isinstance(r, Layout)).coverage["histograms"].startswith("off")


def test_what_cannot_be_counted_is_left_out(tmp_path) -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(9, 6, sparse=True), "head": net()})
    model.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(watch) -> None:
        for _ in range(2):
            model["head"](model["embed"](torch.arange(9))).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    records = record(model, body, tmp_path / "r.jsonl", config=ON)
    assert set(histograms(records)[0].data["gradients"]) == {
        "head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias",
    }  # fmt: skip
    assert next(r for r in records if isinstance(r, Layout)).coverage["histograms"] == "ok"
