"""Architectures whose modules are strange: graphs, flows, transforms, wrappers, types, and odd manners.

Longer than other files: a flat list of short models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from tests.zoo import FEW, Stage, architecture, numbers, train
from tests.zoo_models import mlp

if TYPE_CHECKING:
    from collections.abc import Callable


def fit(stage: Stage, model: nn.Module, *shape: int, out: int = 3, **options: Any) -> None:
    """Train on batches of noise of that shape."""
    train(stage, model, numbers(*(shape or (6, 5)), out=out, count=FEW), **options)


class Convolved(nn.Module):
    """A graph by its sparse matrix, then by messages along edges, attention per node, pooled per graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.message, self.head = nn.Linear(5, 6), nn.Linear(12, 6), nn.Linear(6, 3)
        self.attend = nn.Linear(12, 1, bias=False)
        edges = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 0], [1, 2, 0, 4, 5, 3, 0, 2]])
        self.register_buffer("edges", edges)
        self.register_buffer(
            "matrix", torch.sparse_coo_tensor(edges, torch.full((8,), 0.5), (6, 6)).coalesce()
        )

    def forward(self, x: Tensor) -> Tensor:
        source, target = self.edges
        h = torch.sparse.mm(self.matrix, self.first(x)).relu_()
        both = torch.cat([h[source], h[target]], -1)
        scores = F.leaky_relu(self.attend(both)).exp()
        total = torch.zeros(6, 1).index_add(0, target, scores)
        h = torch.zeros_like(h).scatter_add(
            0, target[:, None].expand(-1, 6), self.message(both) * scores / total[target]
        )
        return self.head(h).index_put((torch.tensor([0]),), torch.zeros(3), accumulate=True)


@architecture("Sparse invariant checks are implicitly disabled")
def graph_with_messages(stage: Stage) -> None:
    fit(stage, Convolved())


class Points(nn.Module):
    """A set: the same network for each, then maximum and segment means, with neighbours by distance."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Conv1d(6, 8, 1), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        near = torch.cdist(x, x).topk(2, largest=False).indices[..., 1]
        pairs = torch.cat([x, x.gather(1, near[..., None].expand_as(x)) - x], -1)
        h = self.each(pairs.mT)
        return self.head(
            torch.cat(
                [
                    h.amax(-1),
                    torch.segment_reduce(
                        h.mT.contiguous(), "mean", lengths=torch.full((x.shape[0], 1), 7), axis=1
                    )[:, 0],
                ],
                -1,
            )
        )


@architecture()
def points_as_a_set(stage: Stage) -> None:
    fit(stage, Points(), 4, 7, 3)


class Flow(nn.Module):
    """An invertible network: couplings, permutations that are buffers, a determinant beside the output."""

    class Outcome(NamedTuple):
        z: Tensor
        volume: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(2, 4) for _ in range(3))
        self.mix = nn.ParameterList([nn.Parameter(torch.linalg.qr(torch.randn(4, 4)).Q) for _ in range(3)])

    def forward(self, x: Tensor) -> Outcome:
        volume = torch.zeros(x.shape[0])
        for part, mix in zip(self.parts, self.mix, strict=True):
            x = x @ mix
            left, right = x.split(2, -1)
            scale, shift = part(left).chunk(2, -1)
            x = torch.cat([left, right * scale.tanh().exp() + shift], -1)
            volume = volume + scale.tanh().sum(-1) + torch.linalg.slogdet(mix).logabsdet
        return self.Outcome(x, volume)


@architecture()
def flow_with_a_named_tuple(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        out = model(x)
        return (0.5 * out.z.square().sum(-1) - out.volume).mean()

    fit(stage, Flow(), 6, 4, loss_of=loss_of)


class Energy(nn.Module):
    """Forces are the slope of an energy: the forward pass calls autograd itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Softplus(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.body(x)
            (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=self.training)
        return {"energy": energy, "forces": -slope}


@architecture()
def forces_from_an_energy(stage: Stage) -> None:
    fit(stage, Energy(), loss_of=lambda m, x, y: F.mse_loss(m(x)["forces"][:, :3], y))


class Ode(nn.Module):
    """One layer, run at many times of day: a Runge-Kutta integration with a learned end."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.end = nn.Parameter(torch.tensor(1.0))

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        return self.slope(torch.cat([x, t.expand(x.shape[0], 1)], -1)).tanh()

    def forward(self, x: Tensor) -> Tensor:
        size = self.end / 3
        for i in range(3):
            t = size * i
            first = self.rate(t, x)
            second = self.rate(t + size / 2, x + first * size / 2)
            x = x + size * second
        return self.head(x)


@architecture()
def differential_equation(stage: Stage) -> None:
    fit(stage, Ode())


class Equilibrium(nn.Module):
    """A fixed point found without gradients, whose gradient a hook of the model's own computes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def once(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.3 * self.inner(z) + self.outer(x))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = torch.zeros_like(x)
            for _ in range(8):
                z = self.once(z, x)
        z = self.once(z, x)
        if torch.is_grad_enabled():
            start = z.detach().requires_grad_()
            again = self.once(start, x)

            def solve(gradient: Tensor) -> Tensor:
                total = gradient
                for _ in range(5):
                    total = torch.autograd.grad(again, start, total, retain_graph=True)[0] + gradient
                return total

            z.register_hook(solve)
        return self.head(z)


@architecture()
def fixed_point(stage: Stage) -> None:
    fit(stage, Equilibrium())


class Hyper(nn.Module):
    """A network that makes the weights of another, which is called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.context = nn.Linear(4, 18), nn.Parameter(torch.randn(4))
        self.main = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.maker(self.context)
        weights = {"weight": self.main.weight + made[:15].view(3, 5), "bias": made[15:]}
        return torch.func.functional_call(self.main, weights, (x,))


@architecture()
def weights_made_by_a_network(stage: Stage) -> None:
    fit(stage, Hyper())


class Ensemble(nn.Module):
    """Three networks as one: their stacked weights are mapped over by vmap."""

    def __init__(self) -> None:
        super().__init__()
        models = [mlp() for _ in range(3)]
        stacked, _ = torch.func.stack_module_state(models)
        self.weights = nn.ParameterDict({k.replace(".", "_"): v.detach() for k, v in stacked.items()})
        self.names = list(stacked)
        self.base = [models[0].to("meta")]
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        def one(weights: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(self.base[0], weights, (x,))

        stacked = {name: self.weights[name.replace(".", "_")] for name in self.names}
        return self.head(torch.func.vmap(one, randomness="different")(stacked).mean(0))


@architecture()
def ensemble_by_vmap(stage: Stage) -> None:
    fit(stage, Ensemble())


class Tangent(nn.Module):
    """Forward-mode derivatives in the forward pass, beside the output itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out, slope = torch.func.jvp(self.body, (x,), (torch.ones_like(x),))
        return self.head(out + 0.1 * slope)


@architecture(r"`torch\.jit\.script` is deprecated")
def forward_mode_derivatives(stage: Stage) -> None:
    fit(stage, Tangent())


class Mixture(nn.Module):
    """A distribution as output: an object that no walk through containers will open."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 12)

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        weights, mean, spread = self.body(x).split(4, -1)
        parts = torch.distributions.Normal(mean, F.softplus(spread) + 0.1)
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=weights), parts)


@architecture()
def mixture_density(stage: Stage) -> None:
    fit(stage, Mixture(), loss_of=lambda m, x, y: -m(x).log_prob(y[:, 0]).mean())


class Bayes(nn.Module):
    """Weights are drawn anew in each pass; the layer is a functional one."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(3, 5) * 0.1)
        self.spread = nn.Parameter(torch.full((3, 5), -3.0))
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.normal(0.0, 1.0, self.mean.shape) * self.spread.exp() + self.mean
        return F.linear(x, weight, self.bias)


@architecture()
def weights_drawn_anew(stage: Stage) -> None:
    fit(stage, nn.Sequential(Bayes(), nn.Dropout1d(0.1), nn.FeatureAlphaDropout(0.1), nn.Linear(3, 3)))


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(2, 5) * 0.1), nn.Parameter(torch.zeros(8, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


@architecture()
def low_rank_adapters(stage: Stage) -> None:
    """The weights are frozen; what is added to them is trained, through a parametrization."""
    model = mlp().requires_grad_(requires_grad=False)
    parametrize.register_parametrization(model[0], "weight", LowRank())
    trained = [p for p in model.parameters() if p.requires_grad]
    fit(stage, model, optimizer=torch.optim.AdamW(trained, lr=0.01))


class Adapted(nn.Module):
    """The adapter wraps the layer, takes its attributes for its own, and frees nothing but itself."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@architecture()
def adapters_that_wrap(stage: Stage) -> None:
    model = mlp()
    model[0], model[2] = Adapted(model[0]), Adapted(model[2])
    fit(stage, model)


@architecture()
def orthogonal_weights(stage: Stage) -> None:
    layer = parametrizations.orthogonal(nn.Linear(8, 8), orthogonal_map="householder")
    fit(stage, nn.Sequential(nn.Linear(5, 8), layer, parametrizations.orthogonal(nn.Linear(8, 3))))


@architecture()
def pruned_weights(stage: Stage) -> None:
    """Pruning turns a weight into a product that a pre-hook computes, and its mask into a buffer."""
    model = mlp()
    prune.random_unstructured(model[0], "weight", 0.3)
    prune.ln_structured(model[2], "weight", 0.25, n=2, dim=0)
    fit(stage, model)


@architecture(r"`torch\.nn\.utils\.weight_norm` is deprecated")
def norms_by_hooks(stage: Stage) -> None:
    """The old weight and spectral norms, which are pre-hooks that set plain attributes."""
    spectral = nn.utils.spectral_norm(nn.Conv1d(1, 2, 3))
    layers = [nn.Unflatten(1, (1, 5)), spectral, nn.Flatten(), nn.utils.weight_norm(nn.Linear(6, 3))]
    fit(stage, nn.Sequential(*layers))


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return self.line(x).relu()
        return -self.line(x)


@architecture(r"`torch\.jit", "The set of methods supported by")
def scripted_and_traced(stage: Stage) -> None:
    """Compiled submodules have no Python forward; a trace and a script side by side."""
    traced = torch.jit.trace(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), torch.randn(2, 8))
    fit(stage, nn.Sequential(nn.Linear(5, 8), torch.jit.script(Gate()), traced, nn.Linear(8, 3)))


class Rounded(nn.Module):
    """Training for int8: observers that are buffers, rounding with a gradient straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            self.scale.copy_(0.9 * self.scale + 0.1 * x.detach().abs().max() / 127)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, -128, 127)


@architecture()
def quantisation_aware(stage: Stage) -> None:
    parts = [nn.Linear(5, 8), Rounded(), nn.ReLU(inplace=True), nn.Linear(8, 3), Rounded()]
    fit(stage, nn.Sequential(Rounded(), *parts))


class Frozen(nn.Module):
    """A front of int8 numbers without parameters, an integer output, a float tail."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-128, 127, (6, 5), dtype=torch.int8))
        self.tail = nn.Linear(6, 3)

    class Count(nn.Module):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:
            return (x * 50).to(torch.int32) @ weight.to(torch.int32).T

    def forward(self, x: Tensor) -> Tensor:
        counts = self.Count()(x, self.weight)
        return self.tail(counts.float() / 1e4)


@architecture()
def integers_and_modules_made_in_passing(stage: Stage) -> None:
    fit(stage, Frozen())


class Manners(nn.Module):
    """Everything by keyword, a module in a plain list, equality of its own, a length, an empty part."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(5, 5)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Manners.Part)

        def __hash__(self) -> int:
            return 7

        def __len__(self) -> int:
            return 0

        def forward(self, *, x: Tensor, twice: bool = False) -> dict[str, Any]:
            return {"out": self.line(x) * (2 if twice else 1), "self": self, "nothing": ()}

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.none = self.Part(), self.Part(), None
        self.hidden = [nn.Linear(5, 5)]
        self.empty = nn.ModuleList()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(x=self.one(x=x)["out"], twice=True)["out"]
        return self.head(self.hidden[0](x))


@architecture()
def odd_manners(stage: Stage) -> None:
    fit(stage, Manners())


class Extremes(nn.Module):
    """A parameter without an axis, one without entries, one that is never used, one used only at times."""

    def __init__(self) -> None:
        super().__init__()
        self.scalar, self.empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 5))
        self.unused, self.seldom = nn.Linear(4, 4), nn.Linear(5, 5)
        self.strided = nn.Parameter(torch.randn(5, 3).t())
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.count % 3 == 0:
            x = self.seldom(x)
        return F.linear(torch.cat([x, self.empty]) * self.scalar, self.strided)


@architecture()
def parameters_at_the_extremes(stage: Stage) -> None:
    fit(stage, Extremes())


class Precisions(nn.Module):
    """float16, bfloat16, float32, float64 and complex128, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex128]
        self.lines = nn.ModuleList(nn.Linear(5, 5, dtype=kind) for kind in kinds)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for line in self.lines:
            x = line(x.to(line.weight.dtype))
        return self.head(x.abs().float())


@architecture("Casting complex values to real discards the imaginary part")
def precisions_mixed(stage: Stage) -> None:
    fit(stage, Precisions())


class Waves(nn.Module):
    """Complex convolutions, and an activation on the real view of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(1, 2, 3, dtype=torch.complex64)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(torch.fft.fft(x[:, None]))
        return self.head(torch.view_as_real(h).relu().flatten(1))


@architecture()
def complex_convolution(stage: Stage) -> None:
    fit(stage, Waves())


class Tagged(Tensor):
    """A tensor subclass that keeps its class through every operation."""


class Tagging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x.as_subclass(Tagged)).tanh()).as_subclass(Tensor)


@architecture()
def tensors_of_a_subclass(stage: Stage) -> None:
    fit(stage, Tagging())


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class Domains(nn.Module):
    """An adversary in the model: the gradient is turned round by a function that returns a view."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.label, self.domain = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x).relu()
        return self.label(h), self.domain(Reverse.apply(h))


@architecture()
def gradient_reversal(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        label, domain = model(x)
        return F.mse_loss(label, y) + F.cross_entropy(domain, torch.arange(6) % 2)

    fit(stage, Domains(), loss_of=loss_of)


class Teaching(nn.Module):
    """A student, and a teacher inside the model that follows it and is hidden from its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.guess = mlp(), nn.Linear(3, 3)
        self.teacher = mlp().requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.lerp_(theirs, 0.1)
            target = self.teacher(x + 0.1 * torch.randn_like(x))
        return F.mse_loss(self.guess(self.student(x)), target)


@architecture()
def teacher_inside_the_model(stage: Stage) -> None:
    fit(stage, Teaching(), loss_of=lambda m, x, y: m(x))


class Hooked(nn.Module):
    """A model that hooks its own modules, tensors and parameters, and replaces outputs that way."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = mlp(), nn.Linear(3, 3)
        self.kept: dict[str, Tensor] = {}
        self.body[1].register_forward_hook(self.keep("relu"))
        self.body.register_forward_pre_hook(
            lambda m, args, kwargs: ((args[0] * 2,), kwargs), with_kwargs=True
        )
        self.body[3].register_forward_hook(lambda m, args, out: out.clone().mul_(0.5), prepend=True)
        self.head.register_full_backward_hook(lambda m, grad_in, grad_out: None)

    def keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            self.kept[name] = out
            out.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))

        return hook

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)) + self.kept["relu"].mean()


@architecture()
def hooks_of_the_model_itself(stage: Stage) -> None:
    fit(stage, Hooked())


class Spiking(nn.Module):
    """Neurons that fire or not: a step function with a gradient of another, state over time."""

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grad / (1 + (math.pi * x).square())

    def __init__(self) -> None:
        super().__init__()
        self.line, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        charge, fired = torch.zeros(x.shape[0], 8), torch.zeros(x.shape[0], 8)
        for _ in range(4):
            charge = 0.9 * charge + self.line(x)
            spike = self.Fire.apply(charge - 0.5)
            charge, fired = charge - spike.detach() * 0.5, fired + spike
        return self.head(fired)


@architecture()
def spiking_neurons(stage: Stage) -> None:
    fit(stage, Spiking())


class Selecting(nn.Module):
    """Discrete choices: Gumbel noise with hard samples, and a mixture of operations to search among."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = nn.Parameter(torch.zeros(3))
        self.operations = nn.ModuleList([nn.Identity(), nn.Linear(5, 5), nn.Sequential()])
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = F.gumbel_softmax(self.choice, hard=True)
        return self.head(sum(w * op(x) for w, op in zip(weights, self.operations, strict=True)))


@architecture()
def search_among_operations(stage: Stage) -> None:
    fit(stage, Selecting())


class Offloaded(nn.Module):
    """Saved tensors are packed away and unpacked for the backward pass, as when they go to another place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
            return self.body(x)


@architecture()
def saved_tensors_packed_away(stage: Stage) -> None:
    fit(stage, Offloaded())


class Swapped(nn.Module):
    """Replaces a parameter's data and a whole parameter in mid-training; also its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 3)
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.count == 3:
            self.two.weight.data = self.two.weight.data.clone().t().contiguous().t()
            self.forward = self.plain  # type: ignore[method-assign]
        return self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).tanh())


@architecture()
def data_swapped_in_passing(stage: Stage) -> None:
    fit(stage, Swapped())


class Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        return None


class Silenced(nn.Module):
    """Two layers hear from autograd that there is no gradient: their hooks are called with None."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.other, self.head = (nn.Linear(5, 5) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Cut.apply(self.two(self.one(x).relu())) + self.other(x))[:, :3]


@architecture()
def gradients_that_are_none(stage: Stage) -> None:
    fit(stage, Silenced())
