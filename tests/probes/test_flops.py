"""Arithmetic of a step against numbers worked out by hand and against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from torchwatch import WatchConfig, Watcher
from torchwatch.probes import _torch
from torchwatch.probes.flops import FlopsProbe

CONFIG = WatchConfig(terminal=False, energy=False)
BATCH = 6


class Attention(nn.Module):
    """Multi-head self-attention and an MLP, as in a transformer block."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for t in self.qkv(x).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(x)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def watched(tmp_path, model, body, config: WatchConfig = CONFIG) -> FlopsProbe:
    with Watcher(model, tmp_path / "r.jsonl", config=config, sinks=[]) as watch:
        probe = next(p for p in watch._session.attachment.probes if isinstance(p, FlopsProbe))
        body(watch)
    assert not torch._C._len_torch_dispatch_stack()
    assert not _torch.OperatorObserver.entered()
    return probe


def train(model, inputs, steps: int = 3, micro: int = 1, loss=lambda y: y.square().mean(), optimizer=None):
    optimizer = optimizer or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)

    def body(watch) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(micro):
                loss(model(inputs)).backward()
            optimizer.step()

    return body


def torchs_own(model, inputs) -> float:
    with FlopCounterMode(display=False) as counter:
        model(inputs).square().mean().backward()
    return counter.get_total_flops()


def test_an_mlp(tmp_path) -> None:
    inputs = torch.randn(BATCH, 5)
    probe = watched(tmp_path, model := mlp(), train(model, inputs))
    first, second = 2 * BATCH * 5 * 7, 2 * BATCH * 7 * 3
    assert probe.flops_per_step == first * 2 + second * 3  # nobody needs the gradient of the input
    assert probe.flops_per_step == torchs_own(model, inputs)
    assert probe.coverage() == "counted; the device's peak is not known"


def test_a_conv_net(tmp_path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=4), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(), nn.LazyLinear(2),
    )  # fmt: skip
    inputs = torch.randn(BATCH, 3, 9, 9)
    model(inputs)
    probe = watched(tmp_path, model, train(model, inputs))
    first = 2 * BATCH * 81 * (3 * 8 * 9)
    second = 2 * BATCH * 16 * (8 * 2 * 9)
    third = 2 * BATCH * 16 * (8 * 4 * 4)
    last = 2 * BATCH * (4 * 64) * 2
    assert probe.flops_per_step == first * 2 + (second + third + last) * 3


def test_a_transformer_block(tmp_path) -> None:
    length, width = 10, 16
    inputs = torch.randn(BATCH, length, width)
    probe = watched(tmp_path, model := Attention(width), train(model, inputs))
    tokens = BATCH * length
    first = 2 * tokens * width * 3 * width
    other = 2 * tokens * (width * width + 8 * width * width)
    attention = 2 * (2 * BATCH * length * length * width)
    assert probe.flops_per_step == first * 2 + other * 3 + attention * 3.5


@pytest.mark.parametrize("build", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(tmp_path, build) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build(5, 7, num_layers=2)

        def forward(self, x):
            return self.inner(x)[0]

    probe = watched(tmp_path, model := Recurrent(), train(model, torch.randn(4, BATCH, 5)))
    forward = 2 * 4 * BATCH * sum(p.numel() for p in model.parameters() if p.dim() == 2)
    assert 2.5 * forward <= probe.flops_per_step <= 3 * forward


def test_attention_written_by_hand_counts_too(tmp_path) -> None:
    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x):
            q = self.inner(x)
            return torch.einsum("bij,bjd->bid", (q @ q.transpose(1, 2)).softmax(-1), q)

    inputs = torch.randn(BATCH, 4, 8)
    probe = watched(tmp_path, model := ByHand(), train(model, inputs))
    assert probe.flops_per_step == torchs_own(model, inputs)


@pytest.mark.parametrize("micro", [1, 3])
def test_all_passes_of_a_step_count(tmp_path, micro) -> None:
    inputs = torch.randn(BATCH, 5)
    probe = watched(tmp_path, model := mlp(), train(model, inputs, micro=micro))
    assert probe.flops_per_step == micro * torchs_own(model, inputs)


def test_a_closure_counts_all_of_its_passes(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3, max_eval=3)
    calls = []

    def body(watch) -> None:
        for _ in range(3):

            def closure():
                optimizer.zero_grad()
                loss = model(inputs).square().mean()
                loss.backward()
                calls.append(1)
                return loss

            before = len(calls)
            optimizer.step(closure)
            if before == 0:
                first.append(len(calls))

    first: list[int] = []
    probe = watched(tmp_path, model, body)
    assert probe.flops_per_step == first[0] * torchs_own(model, inputs)


@pytest.mark.parametrize("recording", [True, False])
def test_evaluation_does_not_count(tmp_path, recording) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    inner = train(model, inputs)

    def body(watch) -> None:
        with torch.set_grad_enabled(recording):
            for _ in range(4):
                model(torch.randn(20, 5))
        inner(watch)

    assert watched(tmp_path, model, body).flops_per_step == torchs_own(model, inputs)


def test_two_optimizers_of_one_step_count_together(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    first = torch.optim.SGD(model[0].parameters(), lr=0.01)
    second = torch.optim.SGD(model[2].parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(4):
            for optimizer in (first, second):
                model.zero_grad()
                model(inputs).square().mean().backward()
                optimizer.step()

    assert watched(tmp_path, model, body).flops_per_step == 2 * torchs_own(model, inputs)


def test_a_frozen_front_costs_no_backward(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    model[0].requires_grad_(False)
    probe = watched(tmp_path, model, train(model, inputs))
    assert probe.flops_per_step == torchs_own(model, inputs)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_recomputes_does_not_count(tmp_path, reentrant) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x):
            return checkpoint(self.second, self.first(x).relu(), use_reentrant=reentrant)

    inputs = torch.randn(BATCH, 5)
    probe = watched(tmp_path, model := Checkpointed(), train(model, inputs))
    assert probe.flops_per_step == 2 * BATCH * 5 * 7 * 2 + 2 * BATCH * 7 * 3 * 3


def test_autocast_counts_the_same(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(inputs).square().mean()
            loss.backward()
            optimizer.step()

    assert watched(tmp_path, model, body).flops_per_step == torchs_own(model, inputs)


def test_our_own_products_do_not_count(tmp_path, monkeypatch) -> None:
    """On the first step all statistics are taken inside of the window."""

    def layer_ran(self, index, module, args, output, *, recording) -> None:
        torch.mm(output.detach(), output.detach().t())
        taken.append(index)

    taken: list[int] = []
    monkeypatch.setattr(FlopsProbe, "layer_ran", layer_ran)
    inputs = torch.randn(BATCH, 5)
    probe = watched(tmp_path, model := mlp(), train(model, inputs, steps=2))
    assert taken
    assert probe.flops_per_step == torchs_own(model, inputs)


def test_the_counter_is_gone_after_an_exception_and_the_next_pass_counts(tmp_path) -> None:
    class Raising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fail = mlp(), True

        def forward(self, x):
            y = self.inner(x)
            if self.fail:
                raise ValueError("no")
            return y

    model, inputs = Raising(), torch.randn(BATCH, 5)
    inner = train(model, inputs)

    def body(watch) -> None:
        with pytest.raises(ValueError, match="no"):
            model(inputs)
        assert not torch._C._len_torch_dispatch_stack()
        model.fail = False
        inner(watch)

    assert watched(tmp_path, model, body).flops_per_step == torchs_own(model, inputs)


def test_the_counter_goes_with_the_watcher_when_the_keyboard_interrupts(tmp_path) -> None:
    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            self.inner(x)
            raise KeyboardInterrupt

    model = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        watched(tmp_path, model, lambda watch: model(torch.randn(BATCH, 5)))
    assert not torch._C._len_torch_dispatch_stack()
    assert not _torch.OperatorObserver.entered()


def test_an_interrupt_that_the_host_catches_costs_nothing_but_the_count_of_that_pass(tmp_path) -> None:
    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fail = mlp(), True

        def forward(self, x):
            y = self.inner(x)
            if self.fail:
                raise KeyboardInterrupt
            return y

    model, inputs = Interrupted(), torch.randn(BATCH, 5)
    inner = train(model, inputs)

    def body(watch) -> None:
        with pytest.raises(KeyboardInterrupt):
            model(inputs)
        model.fail = False
        inner(watch)

    assert watched(tmp_path, model, body).flops_per_step == torchs_own(model, inputs)


def test_the_hosts_own_counter_is_left_alone(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    own = torchs_own(model, inputs)
    inner = train(model, inputs, steps=1)
    counted = []

    def body(watch) -> None:
        with FlopCounterMode(display=False) as counter:
            inner(watch)
        counted.append(counter.get_total_flops())
        inner(watch)
        inner(watch)

    probe = watched(tmp_path, model, body)
    assert counted == [own]
    assert probe.flops_per_step == own


def test_a_profile_of_the_host_shows_every_operator_once(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    inner = train(model, inputs, steps=1)
    seen = []

    def body(watch) -> None:
        with torch.autograd.profiler.profile() as profile:
            inner(watch)
        seen.append(sum(e.name == "aten::addmm" for e in profile.function_events))
        inner(watch)
        inner(watch)

    probe = watched(tmp_path, model, body)
    assert seen == [2]
    assert probe.flops_per_step == torchs_own(model, inputs)


def test_a_counter_of_the_host_inside_the_model(tmp_path) -> None:
    counted = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            with FlopCounterMode(display=False) as counter:
                y = self.inner(x)
            counted.append(counter.get_total_flops())
            return y

    inputs = torch.randn(BATCH, 5)
    probe = watched(tmp_path, model := Counting(), train(model, inputs))
    forward = 2 * BATCH * (5 * 7 + 7 * 3)
    assert counted == [forward] * 3
    assert probe.flops_per_step == forward + 2 * BATCH * (5 * 7 + 2 * 7 * 3)


def test_a_compiled_model_is_said(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(5, 3))
    compiled = torch.compile(model, backend="eager")
    try:
        probe = watched(tmp_path, model, train(compiled, torch.randn(BATCH, 5), steps=2))
        assert probe.coverage() == "not counted: compiled"
    finally:
        torch._dynamo.reset()


@pytest.mark.filterwarnings("default")  # dynamo looks at .grad of everything
def test_functions_compile_under_the_observer() -> None:
    """A mode that dynamo does not ignore makes it skip the function, for ever."""
    graphs: list[object] = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def double(x):
        return x.sin() * 2

    observer = _torch.OperatorObserver(lambda *_: None)
    assert observer.enter()
    try:
        torch.compile(double, backend=backend, fullgraph=True)(torch.ones(3))
    finally:
        assert observer.leave()
        torch._dynamo.reset()
    assert len(graphs) == 1


def test_a_model_without_products_is_said(tmp_path) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5))

        def forward(self, x):
            return x * self.weight

    probe = watched(tmp_path, model := Scale(), train(model, torch.randn(BATCH, 5)))
    assert probe.flops_per_step is None
    assert probe.coverage() == "not counted: no matrix product, convolution or attention was seen"


def test_a_model_that_is_never_called_is_said(tmp_path) -> None:
    model = nn.ModuleDict({"inner": mlp()})
    config = WatchConfig(terminal=False, activations_every=1)
    probe = watched(tmp_path, model, train(model["inner"], torch.randn(BATCH, 5), steps=14), config)
    assert probe.coverage() == "not counted: the model's own forward pass was not seen"


def test_a_formula_that_fails_is_said_and_nothing_more(tmp_path, monkeypatch) -> None:
    from torch.utils import flop_counter

    def broken(*args, **kwargs):
        raise ZeroDivisionError("oops")

    monkeypatch.setitem(flop_counter.flop_registry, torch.ops.aten.addmm, broken)
    probe = watched(tmp_path, model := mlp(), train(model, torch.randn(BATCH, 5)))
    assert probe.coverage() == "not counted: aten.addmm: ZeroDivisionError: oops"


def test_counting_goes_on_once_only(tmp_path) -> None:
    model, inputs = mlp(), torch.randn(BATCH, 5)
    inner = train(model, inputs, steps=1)
    lengths = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x):
            lengths.append(torch._C._len_torch_dispatch_stack())
            return self.inner(x)

    spy = Spy()
    watched(tmp_path, spy, train(spy, inputs, steps=6))
    assert lengths[:1] == [1]
    assert sum(lengths) <= 2
    inner(None)
