"""Cases that differ in the optimizer: every class of torch.optim in each implementation, and wrappers."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.zoo import Stage, add, case, numbers, tokens, train
from tests.zoo_models import mlp, words_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OWN_CASES = {"LBFGS", "SparseAdam", "Muon"}
"""Classes that a plain loop over a plain model cannot drive."""

PLAIN: dict[str, type[Optimizer]] = {
    name: value
    for name, value in sorted(vars(torch.optim).items())
    if inspect.isclass(value)
    and issubclass(value, Optimizer)
    and value is not Optimizer
    and name not in OWN_CASES
}


def loop(stage: Stage, make: Callable[[Iterable[Tensor]], Optimizer]) -> None:
    model = mlp()
    train(stage, model, numbers(6, 5), make(model.parameters()))


for _name, _class in PLAIN.items():
    add(f"optimizer-{_name.lower()}", functools.partial(loop, make=_class))
    if "foreach" in inspect.signature(_class).parameters:
        add(f"foreach-{_name.lower()}", functools.partial(loop, make=functools.partial(_class, foreach=True)))
    if "fused" in inspect.signature(_class).parameters:
        add(f"fused-{_name.lower()}", functools.partial(loop, make=functools.partial(_class, fused=True)))


@case()
def optimizer_sparseadam(stage: Stage) -> None:
    model = nn.Sequential(nn.Embedding(11, 8, sparse=True), nn.Linear(8, 11))
    sparse = torch.optim.SparseAdam(model[0].parameters(), lr=0.01)
    dense = torch.optim.Adam(model[1].parameters(), lr=0.01)
    with stage.watch(model) as watch:
        for x, y in tokens():
            model.zero_grad()
            loss = words_loss(model, x, y)
            loss.backward()
            stage.gradients(model)
            sparse.step()
            dense.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, sparse, dense)


@case()
def optimizer_muon(stage: Stage) -> None:
    if not hasattr(torch.optim, "Muon"):  # torch < 2.9
        return loop(stage, torch.optim.SGD)
    model = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    return train(stage, model, numbers(6, 5), torch.optim.Muon(model.parameters(), lr=0.01))


class Lookahead(Optimizer):
    """A wrapper that is an Optimizer itself: its step calls the inner one, on the same weights."""

    def __init__(self, inner: Optimizer, every: int = 3) -> None:
        self.inner = inner
        self.every = every
        self.count = 0
        super().__init__(inner.param_groups, {})
        self.slow = [[p.detach().clone() for p in g["params"]] for g in inner.param_groups]

    def step(self, closure: Any = None) -> Any:
        loss = self.inner.step(closure)
        self.count += 1
        if self.count % self.every == 0:
            for group, slow in zip(self.inner.param_groups, self.slow, strict=True):
                for fast, kept in zip(group["params"], slow, strict=True):
                    fast.data.copy_(kept.lerp_(fast.detach(), 0.5))
        return loss


class Delegating:
    """A wrapper that is no Optimizer: the shape of Accelerate's and Lightning's."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner

    def step(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.step(*args, **kwargs)

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()


class Twice(torch.optim.SGD):
    """A subclass whose step calls its parent's step."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Twofold(Lookahead):
    """One step of it is two steps of the inner optimizer."""

    def step(self, closure: Any = None) -> Any:
        self.inner.step()
        return super().step(closure)


class SharpnessAware(Optimizer):
    """SAM: two backward passes a step; the climb is no step() call, the descent is the inner optimizer's."""

    def __init__(self, inner: Optimizer, rho: float = 0.05) -> None:
        self.inner = inner
        self.rho = rho
        super().__init__(inner.param_groups, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        parameters = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        moves = [p.grad * self.rho for p in parameters]
        torch._foreach_add_(parameters, moves)
        with torch.enable_grad():
            loss = closure()
        torch._foreach_sub_(parameters, moves)
        self.inner.step()
        return loss


@case()
def wrapper_lookahead(stage: Stage) -> None:
    loop(stage, lambda parameters: Lookahead(torch.optim.Adam(parameters, lr=0.01)))


@case()
def wrapper_with_two_inner_steps(stage: Stage) -> None:
    loop(stage, lambda parameters: Twofold(torch.optim.SGD(parameters, lr=0.01)))


@case()
def wrapper_delegating(stage: Stage) -> None:
    loop(stage, lambda parameters: Delegating(torch.optim.SGD(parameters, lr=0.05)))  # type: ignore[arg-type, return-value]


@case()
def wrapper_subclass(stage: Stage) -> None:
    loop(stage, functools.partial(Twice, lr=0.05, momentum=0.9))


@case()
def wrapper_sharpness_aware(stage: Stage) -> None:
    model = mlp()
    optimizer = SharpnessAware(torch.optim.SGD(model.parameters(), lr=0.05))
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                return loss

            closure()
            loss = optimizer.step(closure)
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer.inner)
