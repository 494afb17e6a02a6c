"""The first non-finite value is named where it was planted, and nothing is named on healthy runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig
from torchwatch.records import Step

SAMPLED = WatchConfig(activations_every=1, budget=None, terminal=False)
SUMMED = WatchConfig(activations_every=10_000, dense_steps=0, sentinel=True, budget=None, terminal=False)
UNSEEN = WatchConfig(activations_every=10_000, dense_steps=0, sentinel=False, budget=None, terminal=False)
BOTH = pytest.mark.parametrize("config", [SAMPLED, SUMMED], ids=["statistics", "sentinel"])

BAD_STEP = 4


class Planted(nn.Module):
    """Passes on what it gets; when armed, by way of an operation that yields no number."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind, self.armed = kind, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.armed:
            return x * 1.0
        if self.kind == "sqrt":
            return torch.sqrt(-x.abs() - 1)
        if self.kind == "log":
            return torch.log(x * 0)
        if self.kind == "division":
            return x / (x - x)
        if self.kind == "backward":  # finite forward, 0/0 backward
            return x + torch.sqrt((x * 0).square()) * 0
        raise AssertionError(self.kind)


class Net(nn.Module):
    """Three blocks with a planted module after each, optionally behind a checkpoint."""

    def __init__(self, place: int, kind: str, *, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linears = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.plants = nn.ModuleList([Planted(kind) for _ in range(3)])
        self.place, self.reentrant = place, reentrant

    def block(self, number: int, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.plants[number](self.linears[number](x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(3):
            if self.reentrant is None:
                x = self.block(number, x)
            else:
                x = checkpoint(self.block, number, x, use_reentrant=self.reentrant)
        return x


def run(
    model: nn.Module,
    path: Any,
    config: WatchConfig,
    *,
    before: Callable[[int, torch.optim.Optimizer], None] = lambda step, optimizer: None,
    batch: Callable[[int], torch.Tensor] = lambda step: torch.ones(4, 6),
    loss_of: Callable[[int, torch.Tensor], torch.Tensor] = lambda step, y: y.square().mean(),
    micro: int = 1,
    steps: int = 6,
    log: bool = True,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[Step]:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for step in range(1, steps + 1):
            before(step, optimizer)
            optimizer.zero_grad()
            for _ in range(micro):
                loss = loss_of(step, model(batch(step)))
                loss.backward()
                if log:
                    watch.log(loss=loss)
            optimizer.step()

    return steps_of(record(model, body, path / "r.jsonl", config=config))


def arming(net: Net) -> Callable[[int, Any], None]:
    def arm(step: int, _: Any) -> None:
        net.plants[net.place].armed = step == BAD_STEP

    return arm


def first(steps: list[Step]) -> dict[str, Any]:
    """What the first troubled step names; nothing may be named before."""
    assert [s.first_nonfinite for s in steps[: BAD_STEP - 1]] == [None] * (BAD_STEP - 1)
    found = steps[BAD_STEP - 1].first_nonfinite
    assert found is not None
    return found


@BOTH
@pytest.mark.parametrize("kind", ["sqrt", "log", "division"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_forward(tmp_path, config, kind, place) -> None:
    net = Net(place, kind)
    found = first(run(net, tmp_path, config, before=arming(net)))
    assert (found["where"], found["name"]) == ("forward", f"plants.{place}")
    assert found["seen_by"] == ("statistics" if config is SAMPLED else "sentinel")
    if config is SAMPLED:
        assert found["order"] == 2 * place + 1


@BOTH
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("micro", [1, 3])
def test_forward_behind_a_checkpoint_and_in_an_accumulation(tmp_path, config, reentrant, micro) -> None:
    net = Net(1, "log", reentrant=reentrant)
    net.linears[0].weight.requires_grad_()
    x = torch.ones(4, 6, requires_grad=True)
    found = first(run(net, tmp_path, config, before=arming(net), batch=lambda _: x, micro=micro))
    assert (found["where"], found["name"]) == ("forward", "plants.1")


@BOTH
@pytest.mark.parametrize("place", [0, 1, 2])
def test_backward(tmp_path, config, place) -> None:
    net = Net(place, "backward")
    found = first(run(net, tmp_path, config, before=arming(net)))
    assert found["where"] == "backward"
    assert found["name"] == f"linears.{place}.weight"  # the first gradient on the way back that went bad


def test_backward_is_named_without_any_look_at_outputs(tmp_path) -> None:
    net = Net(1, "backward")
    found = first(run(net, tmp_path, UNSEEN, before=arming(net)))
    assert found["where"] == "backward"


@BOTH
def test_a_learning_rate_that_is_infinite(tmp_path, config) -> None:
    net = Net(0, "")

    def before(step: int, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["lr"] = math.inf if step == BAD_STEP else 0.01

    steps = run(net, tmp_path, config, before=before)
    assert first(steps)["where"] == "optimizer"
    assert first(steps)["name"].startswith("linears.")
    following = steps[BAD_STEP].first_nonfinite
    assert (following["where"], following["name"]) == ("parameter", "linears.0.weight")


@BOTH
def test_an_optimizer_state_that_went_bad(tmp_path, config) -> None:
    net = Net(0, "")
    adam = torch.optim.Adam(net.parameters(), lr=0.01)

    def before(step: int, optimizer: torch.optim.Optimizer) -> None:
        if step == BAD_STEP:
            optimizer.state[net.linears[1].bias]["exp_avg"][2] = math.nan

    found = first(run(net, tmp_path, config, before=before, optimizer=adam))
    assert (found["where"], found["name"]) == ("optimizer", "linears.1.bias")


@BOTH
def test_a_weight_that_somebody_wrote(tmp_path, config) -> None:
    net = Net(0, "")

    def before(step: int, _: Any) -> None:
        if step == BAD_STEP:
            with torch.no_grad():
                net.linears[1].weight[0, 0] = math.nan

    found = first(run(net, tmp_path, config, before=before))
    assert (found["where"], found["name"]) == ("parameter", "linears.1.weight")


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_input(tmp_path, config, bad) -> None:
    def batch(step: int) -> torch.Tensor:
        x = torch.ones(4, 6)
        if step == BAD_STEP:
            x[1, 2] = bad
        return x

    steps = run(Net(0, ""), tmp_path, config, batch=batch, loss_of=lambda _, y: y.sum())
    if math.isnan(bad):
        assert (first(steps)["where"], first(steps)["name"]) == ("input", "0")
        assert steps[BAD_STEP - 1].fingerprint is not None
    else:  # tanh makes 1 of an infinite input: the loss is fine, the gradient of the weights is not
        assert math.isfinite(steps[BAD_STEP - 1].loss)
        assert first(steps)["where"] == "input"


@BOTH
def test_the_loss_function(tmp_path, config) -> None:
    def loss_of(step: int, y: torch.Tensor) -> torch.Tensor:
        return torch.log(y.square().mean() * (0 if step == BAD_STEP else 1))

    found = first(run(Net(0, ""), tmp_path, config, loss_of=loss_of))
    assert (found["where"], found["name"]) == ("loss", "")


@BOTH
def test_the_models_own_code_after_its_last_layer(tmp_path, config) -> None:
    class Logged(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (math.nan if self.plants[0].armed else 1.0)

    class Quiet(Planted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1.0

    net = Logged(0, "")
    net.plants[0] = Quiet()
    found = first(run(net, tmp_path, config, before=arming(net)))
    assert (found["where"], found["name"]) == ("forward", "")


def test_what_was_not_watched_is_not_named(tmp_path) -> None:
    net = Net(1, "sqrt")
    steps = run(net, tmp_path, UNSEEN, before=arming(net))
    assert math.isnan(steps[BAD_STEP - 1].loss) or math.isinf(steps[BAD_STEP - 1].loss)
    assert steps[BAD_STEP - 1].first_nonfinite is None


@BOTH
def test_a_batch_that_the_host_skips_does_not_blame_the_loss(tmp_path, config) -> None:
    """It saw the NaN itself and went on: the pass was not trained on, only its loss was logged."""
    net = Net(1, "sqrt")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def body(watch) -> None:
        for step in range(1, 7):
            net.plants[1].armed = step == BAD_STEP
            optimizer.zero_grad()
            loss = net(torch.ones(4, 6)).square().mean()
            watch.log(loss=loss)
            if not torch.isfinite(loss):
                continue
            loss.backward()
            optimizer.step()

    for step in steps_of(record(net, body, tmp_path / "r.jsonl", config=config)):
        assert step.first_nonfinite is None


@BOTH
def test_an_evaluation_names_nothing(tmp_path, config) -> None:
    net = Net(1, "log")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def body(watch) -> None:
        for step in range(1, 6):
            net.plants[1].armed = True
            with torch.no_grad():
                net(torch.ones(4, 6))
            net.plants[1].armed = False
            optimizer.zero_grad()
            loss = net(torch.ones(4, 6)).square().mean() * (math.nan if step == 5 else 1)
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    steps = steps_of(record(net, body, tmp_path / "r.jsonl", config=config))
    assert [s.first_nonfinite for s in steps[:4]] == [None] * 4
    assert steps[4].first_nonfinite["where"] == "loss"


class Masked(nn.Module):
    """Scores that are −∞ on purpose, and values near the largest float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mask, self.huge = nn.Linear(6, 6), Mask(-math.inf), Mask(torch.finfo().min)
        self.plant, self.last = Planted("log"), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.softmax(self.mask(self.first(x)), -1)
        return self.last(self.plant(torch.softmax(self.huge(x), -1)))


class Mask(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(torch.arange(x.shape[-1]) > 2, self.value)


@BOTH
def test_infinities_on_purpose_are_never_blamed(tmp_path, config) -> None:
    torch.manual_seed(0)
    model = Masked()

    def before(step: int, _: Any) -> None:
        model.plant.armed = step == BAD_STEP

    found = first(run(model, tmp_path, config, before=before))
    assert (found["where"], found["name"]) == ("forward", "plant")


def test_a_table_of_infinities_is_harmless(tmp_path) -> None:
    class Biased(Net):
        def __init__(self) -> None:
            super().__init__(1, "log")
            self.table = nn.Parameter(torch.full((2, 6), -math.inf))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.softmax(torch.cat([x[:1] * 0, self.table.detach()]), 0)[0]

    net = Biased()
    steps = run(net, tmp_path, SAMPLED, before=arming(net))
    found = steps[BAD_STEP - 1].first_nonfinite
    assert (found["where"], found["name"]) == ("forward", "plants.1")
    assert [s.first_nonfinite for s in steps[1 : BAD_STEP - 1]] == [None, None]


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    config=st.sampled_from([SAMPLED, SUMMED, UNSEEN]),
    micro=st.integers(1, 3),
    scale=st.sampled_from([1e-20, 1.0, 1e15]),
    log=st.booleans(),
)
def test_a_healthy_run_names_nothing(tmp_path_factory, seed, config, micro, scale, log) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), Mask(-1e38), nn.Tanh(), nn.Linear(8, 6))
    steps = run(
        model, tmp_path_factory.mktemp("run"), config,
        batch=lambda _: torch.randn(4, 6) * scale, micro=micro, steps=4, log=log,
    )  # fmt: skip
    assert len(steps) == 4
    assert [s.first_nonfinite for s in steps] == [None] * 4


def test_submodules_called_without_the_model(tmp_path) -> None:
    net = Net(1, "sqrt")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def body(watch) -> None:
        for step in range(1, 6):
            net.plants[1].armed = step == BAD_STEP
            optimizer.zero_grad()
            x = torch.ones(4, 6)
            for number in range(3):
                x = net.block(number, x)
            loss = x.square().mean()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    found = first(steps_of(record(net, body, tmp_path / "r.jsonl", config=SUMMED)))
    assert (found["where"], found["name"]) == ("forward", "plants.1")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precisions_and_outputs_of_several_kinds(tmp_path, dtype) -> None:
    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return {"whole": torch.arange(3), "half": x.to(dtype) * 200, "text": "a", "again": (x, [x * 2])}

    class Model(Net):
        def __init__(self) -> None:
            super().__init__(1, "log")
            self.mixed = Mixed()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = self.mixed(super().forward(x))
            return outputs["half"].float() + outputs["again"][0]

    net = Model()
    found = first(run(net, tmp_path, SUMMED, before=arming(net), batch=lambda _: torch.ones(400, 6)))
    assert (found["where"], found["name"]) == ("forward", "plants.1")
