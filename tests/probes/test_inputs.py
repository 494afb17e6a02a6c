"""What is recorded of the model's arguments, and of which passes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probe import Frame
from torchwatch.probes.inputs import InputProbe, named_tensors
from torchwatch.records import Layout
from torchwatch.schedule import Plan

SELDOM = WatchConfig(activations_every=1000, dense_steps=1, sentinel=True, budget=None, terminal=False)


def batches(count: int, shape: tuple[int, ...] = (8, 4)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def trained(model, inputs, tmp_path, config=EVERY_STEP, before=lambda: None, call=lambda model, x: model(x)):
    """The steps of a run in which each entry of ``inputs`` is one step, a list being several passes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def body(watch) -> None:
        for entry in inputs:
            for x in entry if isinstance(entry, list) else [entry]:
                call(model, x).square().mean().backward()
            before()
            optimizer.step()
            optimizer.zero_grad()
            watch.log(loss=1.0)

    return record(model, body, tmp_path / "r.jsonl", config=config)


def prints(records) -> list[str | None]:
    return [s.fingerprint for s in steps_of(records)]


def test_equal_batches_have_equal_fingerprints(tmp_path) -> None:
    a, b, c = batches(3)
    found = prints(trained(nn.Linear(4, 1), [a, b, a.clone(), c, b], tmp_path))
    assert found[0] == found[2]
    assert found[1] == found[4]
    assert len(set(found)) == 3
    assert all(len(f) == 8 and int(f, 16) >= 0 for f in found)


def test_it_is_there_on_steps_that_are_not_sampled(tmp_path) -> None:
    a, b = batches(2)
    records = trained(nn.Linear(4, 1), [a, b, a, b, a], tmp_path, SELDOM)
    steps = steps_of(records)
    assert [s.activations is not None for s in steps] == [True, False, False, False, False]
    assert len(set(prints(records))) == 2
    assert prints(records)[0] == prints(records)[2] == prints(records)[4]
    assert [s.inputs is not None for s in steps] == [True, False, False, False, False]


def test_passes_of_an_accumulation_are_combined_in_order(tmp_path) -> None:
    a, b, c = batches(3)
    records = trained(nn.Linear(4, 1), [[a, b], [b, a], [a, b], [a, c]], tmp_path)
    first, second, third, fourth = prints(records)
    assert first == third
    assert len({first, second, fourth}) == 3
    assert steps_of(records)[0].inputs["passes"] == 2


def test_evaluation_and_discarded_passes_do_not_count(tmp_path) -> None:
    model = nn.Linear(4, 1)
    a, b, c = batches(3)

    def evaluate() -> None:
        with torch.no_grad():
            model(b * float("nan"))
        model(c * float("nan"))  # forgot no_grad

    bare = prints(trained(nn.Linear(4, 1), [a, a], tmp_path))
    for config in (EVERY_STEP, SELDOM):
        steps = steps_of(trained(model, [a, a], tmp_path, config, before=evaluate))
        assert [s.fingerprint for s in steps] == bare
        assert steps[0].inputs["passes"] == 1
        assert steps[0].inputs["nonfinite"] == 0


def test_passes_with_both_gradients_later_count_in_their_order(tmp_path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    a, b = batches(2)

    def body(watch) -> None:
        for first, second in [(a, b), (b, a), (a, b)]:
            (model(first).sum() - model(second).sum() ** 2).backward()
            optimizer.step()

    found = prints(record(model, body, tmp_path / "r.jsonl"))
    assert found[0] == found[2] != found[1]


def test_a_closure_that_runs_its_batch_several_times(tmp_path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    a, b = batches(2)

    def body(watch) -> None:
        for x in (a, b, a):

            def closure(x=x):
                optimizer.zero_grad()
                loss = (model(x) - 1).square().mean()
                loss.backward()
                return loss

            optimizer.step(closure)

    found = prints(record(model, body, tmp_path / "r.jsonl"))
    assert found[0] == found[2] != found[1]


def test_statistics_equal_a_float64_reference(tmp_path) -> None:
    x, y = (
        1000 + torch.randn(64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        for i in (0, 1)
    )
    records = trained(nn.Linear(4, 1), [[x.float(), y.float()]], tmp_path)
    inputs = steps_of(records)[0].inputs
    both = torch.cat([x.float(), y.float()]).double()
    (tensor,) = inputs["tensors"]
    assert (tensor["name"], tensor["shape"], tensor["dtype"]) == ("0", [64, 4], "float32")
    np.testing.assert_allclose(tensor["mean"], both.mean(), rtol=1e-6)
    np.testing.assert_allclose(tensor["std"], both.std(correction=0), rtol=1e-4)
    np.testing.assert_allclose(tensor["absmax"], both.abs().max(), rtol=1e-7)
    assert (tensor["low"], tensor["high"]) == (
        pytest.approx(both.min().item()),
        pytest.approx(both.max().item()),
    )
    assert (tensor["nonfinite"], inputs["nonfinite"], inputs["batch"], inputs["passes"]) == (0, 0, 64, 2)


def test_nonfinite_inputs_are_counted_and_the_numbers_say_so(tmp_path) -> None:
    x = batches(1)[0]
    x[0, :2] = float("nan")
    x[1, 0] = float("-inf")
    inputs = steps_of(trained(nn.Linear(4, 1), [x], tmp_path))[0].inputs
    assert inputs["nonfinite"] == 3
    assert inputs["tensors"][0]["nonfinite"] == 3
    assert np.isnan(inputs["tensors"][0]["mean"])
    assert np.isnan(inputs["tensors"][0]["absmax"])


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, batch, *, mask=None, flag=None, scale=None):
        return self.head(self.embed(batch["ids"])) * mask.unsqueeze(-1) * scale


def test_ids_masks_and_keywords(tmp_path) -> None:
    ids = torch.randint(3, 40, (5, 7), generator=torch.Generator().manual_seed(0))
    ids[0, 0], ids[1, 1] = 2, 41
    call = lambda model, x: model(  # noqa: E731
        {"ids": x, "names": ["a"]}, mask=torch.ones(5, 7, dtype=torch.bool), scale=torch.tensor(0.5).half()
    )
    step = steps_of(trained(Tagger(), [ids], tmp_path, call=call))[0]
    assert step.tokens == 35
    assert step.inputs["tensors"] == [
        {"name": "0.ids", "shape": [5, 7], "dtype": "int64", "low": 2, "high": 41},
        {"name": "mask", "shape": [5, 7], "dtype": "bool"},
        {
            "name": "scale", "shape": [], "dtype": "float16", "low": 0.5, "high": 0.5, "mean": 0.5,
            "std": 0.0, "absmax": 0.5, "nonfinite": 0,
        },
    ]  # fmt: skip


def test_labels_are_no_tokens(tmp_path) -> None:
    class Speech(nn.Linear):
        def forward(self, waves, labels=None):
            return super().forward(waves)

    call = lambda model, x: model(x, labels=torch.zeros(8, 4, dtype=torch.int64))  # noqa: E731
    step = steps_of(trained(Speech(4, 1), batches(1), tmp_path, call=call))[0]
    assert step.tokens is None
    assert [t["name"] for t in step.inputs["tensors"]] == ["0", "labels"]


def test_only_the_first_four_tensors_are_described(tmp_path) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, *xs):
            return sum(x @ self.weight for x in xs)

    parts = batches(6)
    step = steps_of(trained(Sum(), [torch.stack(parts)], tmp_path, call=lambda m, x: m(*x)))[0]
    assert [t["name"] for t in step.inputs["tensors"]] == ["0", "1", "2", "3"]
    assert step.inputs["more"] == 2


def coverage(records) -> list[str]:
    return [r.coverage["inputs"] for r in records if isinstance(r, Layout)]


def test_a_model_that_is_never_called_itself_is_said(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    records = trained(model, batches(3), tmp_path, call=lambda m, x: m[2](m[1](m[0](x))))
    assert set(prints(records)) == {None}
    assert coverage(records)[-1] == "not seen: the model's own forward is not called"
    assert coverage(trained(nn.Linear(4, 1), batches(3), tmp_path)) == ["ok"]


def test_arguments_without_tensors_are_said(tmp_path) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, how_many):
            return self.weight * how_many

    records = trained(Constant(), [3, 3], tmp_path)
    assert set(prints(records)) == {None}
    assert coverage(records)[-1] == "not seen: no tensor that can be read among the model's arguments"


def plan(number: int, *, sampled: bool) -> Plan:
    return Plan(number, gradients=True, sampled=sampled, rare=False, sentinel=False)


def merged(probe: InputProbe, number: int, *, sampled: bool = True) -> dict:
    frame = Frame(plan(number, sampled=sampled))
    probe.merge(frame)
    payloads = frame.payloads.get("inputs")
    return InputProbe.decode(payloads, frame.values(), frame) if payloads else {}


def test_batches_of_the_loader_stand_in_for_a_model_that_is_never_called() -> None:
    probe = InputProbe()
    probe.patient = type("P", (), {"version": 0})()
    probe.arm(plan(1, sampled=True))
    probe.next_step(plan(1, sampled=True))
    x, y = torch.ones(3, 4), torch.tensor([1, 0, 2])
    probe.offer((x, y))  # the model may still be called: not looked at
    assert merged(probe, 1) == {}
    probe.offer((x, y))
    found = merged(probe, 2)
    assert found["inputs"]["source"] == "batches"
    assert found["inputs"]["batch"] == 3
    assert [t["name"] for t in found["inputs"]["tensors"]] == ["0", "1"]
    probe.next_step(Plan(3, gradients=False, sampled=False, rare=False, sentinel=False))
    probe.offer((x, y))  # a plain step costs nothing
    assert merged(probe, 3, sampled=False) == {}
    probe.next_step(plan(4, sampled=True))
    probe.offer((x, y))
    probe.model_ran((x,), None, recording=True)
    probe.trained(0)
    assert "source" not in merged(probe, 4)["inputs"]
    probe.offer((x, y))  # it is called after all
    assert merged(probe, 5) == {}


def test_what_waits_for_a_gradient_is_bounded() -> None:
    probe = InputProbe()
    probe.patient = type("P", (), {"version": 0})()
    for _ in range(1000):
        probe.model_ran((torch.ones(3, 4),), None, recording=True)
    assert len(probe._passes._waiting) <= 64
    for turn in range(1000):
        probe.trained(turn)
    assert merged(probe, 1)["fingerprint"] == merged_alone()
    probe.detach()
    assert merged(probe, 2) == {}


def merged_alone() -> str:
    probe = InputProbe()
    probe.patient = type("P", (), {"version": 0})()
    probe.model_ran((torch.ones(3, 4),), None, recording=True)
    probe.trained(0)
    return merged(probe, 1)["fingerprint"]


@dataclasses.dataclass
class Pair:
    left: torch.Tensor
    right: object


def test_tensors_are_found_with_their_places_and_within_bounds() -> None:
    one = torch.zeros(1)
    value = (
        {"a.b": one, 3: [one]},
        Pair(one, (one, "text")),
        (i for i in [one]),
        torch.zeros(1, device="meta"),
    )
    assert [name for name, _ in named_tensors(value)] == ["0.a.b", "0.3.0", "1.left", "1.right.0"]
    assert len(list(named_tensors([one] * 100))) == 16
    deep: object = one
    for _ in range(9):
        deep = [deep]
    assert list(named_tensors(deep)) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double_inputs(dtype, tmp_path) -> None:
    x = batches(1)[0].to(dtype)
    model = nn.Linear(4, 1).to(dtype)
    tensor = steps_of(trained(model, [x], tmp_path))[0].inputs["tensors"][0]
    np.testing.assert_allclose(tensor["mean"], x.double().mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor["std"], x.double().std(correction=0), rtol=1e-5)
