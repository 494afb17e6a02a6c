"""Cases that differ in the loop: who steps, when, how often, and what happens between the steps.

Longer than other files: a flat list of short cases.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo import ITERATIONS, Stage, case, mean_square, numbers, train
from tests.zoo_models import Encoder, Recurrent, mlp, small_resnet, words_loss  # noqa: F401


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 5))
        self.critic = nn.Sequential(nn.Linear(5, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1))

    def fake(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, 4))


def critic_loss(gan: Gan, x: Tensor) -> Tensor:
    fake = gan.critic(gan.fake(x.shape[0]).detach())
    return F.softplus(-gan.critic(x)).mean() + F.softplus(fake).mean()


def gan_loop(stage: Stage, critics: int, iterations: int) -> None:
    """``critics`` critic steps, then one generator step, which touches other weights than the last one."""
    gan = Gan()
    g = torch.optim.Adam(gan.generator.parameters(), lr=0.01, betas=(0.5, 0.9))
    c = torch.optim.Adam(gan.critic.parameters(), lr=0.01)
    with stage.watch(gan) as watch:
        for x, _ in numbers(6, 5, count=iterations):
            for i in range(critics):
                c.zero_grad()
                loss_c = critic_loss(gan, x)
                loss_c.backward()
                stage.gradients(gan)
                c.step()
                if i < critics - 1:
                    stage.step(loss_c)
            g.zero_grad()
            loss = F.softplus(-gan.critic(gan.fake(6))).mean()
            loss.backward()
            stage.gradients(gan)
            g.step()
            watch.log(loss=loss, loss_c=loss_c)
            stage.step(loss)
    stage.end(gan, g, c)


@case()
def gan_with_two_optimizers(stage: Stage) -> None:
    gan_loop(stage, critics=1, iterations=ITERATIONS)


@case()
def gan_with_three_critic_steps(stage: Stage) -> None:
    gan_loop(stage, critics=3, iterations=5)


@case()
def accumulation(stage: Stage) -> None:
    model = small_resnet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(numbers(4, 1, 8, 8, count=3 * ITERATIONS)):
            loss = F.mse_loss(model(x), y) / 3
            loss.backward()
            stage.gradients(model)
            watch.log(loss=loss)
            if i % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
                stage.step(loss)
    stage.end(model, optimizer)


@case()
def lbfgs_with_closure(stage: Stage) -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                return loss

            loss = optimizer.step(closure)
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def closure_with_sgd(stage: Stage) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                return loss

            loss = optimizer.step(closure)
            stage.gradients(model)
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def bf16_autocast(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)
        return F.mse_loss(out.float(), y)

    train(stage, small_resnet(), numbers(4, 1, 8, 8), loss_of=loss_of)


def scaler_loop(stage: Stage, *, clip: bool) -> None:
    """Scaled float16 losses; one batch overflows, so that one optimizer step is skipped."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    batches = numbers(6, 5)
    batches[5] = (batches[5][0] * float("inf"), batches[5][1])
    with stage.watch(model, scaler=scaler) as watch:
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            scaler.scale(loss).backward()
            if clip:
                scaler.unscale_(optimizer)
                stage.write("norm", nn.utils.clip_grad_norm_(model.parameters(), 0.5))
            stage.gradients(model)
            scaler.step(optimizer)
            scaler.update()
            watch.log(loss=loss)
            stage.write("scale", scaler.get_scale())
            stage.step(loss)  # a skipped step is a record as well
    stage.end(model, optimizer)


@case()
def grad_scaler(stage: Stage) -> None:
    scaler_loop(stage, clip=False)


@case()
def grad_scaler_with_clipping(stage: Stage) -> None:
    scaler_loop(stage, clip=True)


@case()
def gradient_penalty(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        out = model(x)
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return F.mse_loss(out, y) + (slope.norm(dim=1) - 1).square().mean()

    train(stage, mlp(), numbers(6, 5), loss_of=loss_of)


@case()
def hessian_vector_product(stage: Stage) -> None:
    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        parameters = list(model.parameters())
        loss = F.mse_loss(model(x), y)
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        return loss + 0.01 * sum((s * p.detach()).sum() for s, p in zip(slopes, parameters, strict=True))

    train(stage, mlp(), numbers(6, 5), loss_of=loss_of)


@case()
def retain_graph(stage: Stage) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            optimizer.zero_grad()
            out = model(x)
            loss = F.mse_loss(out, y)
            loss.backward(retain_graph=True)
            (0.1 * out.square().mean()).backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def frozen_front(stage: Stage) -> None:
    model = small_resnet()
    for layer in model[:2]:
        layer.requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    train(stage, model, numbers(4, 1, 8, 8), optimizer)


@case()
def fine_tuning_in_eval(stage: Stage) -> None:
    train(stage, small_resnet().eval(), numbers(4, 1, 8, 8))


@case()
def thawing_in_mid_training(stage: Stage) -> None:
    """The front is frozen at first; halfway it is added to the optimizer as a group of its own."""
    model = mlp()
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam([*model[2].parameters(), *model[4].parameters()], lr=0.01)
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(numbers(6, 5)):
            if i == ITERATIONS // 2:
                model[0].requires_grad_(requires_grad=True)
                optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.001})
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def new_head_in_mid_training(stage: Stage) -> None:
    """A layer is replaced, and with it the optimizer."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(numbers(6, 5)):
            if i == ITERATIONS // 2:
                model[4] = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
                optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def average_by_deepcopy(stage: Stage) -> None:
    """An exponential moving average is copied off in mid-training, updated and evaluated."""
    model = small_resnet()
    average: nn.Module | None = None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(numbers(4, 1, 8, 8)):
            if i == 3:
                average = copy.deepcopy(model).eval()
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            if average is not None:
                with torch.no_grad():
                    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
                        mean.lerp_(now, 0.1)
                    stage.write("average", average(x))
            stage.step(loss)
    assert average is not None
    stage.end(model, optimizer)
    stage.end(average)


@case()
def stochastic_weight_averaging(stage: Stage) -> None:
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batches = numbers(4, 1, 8, 8)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    with stage.watch(model) as watch:
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            averaged.update_parameters(model)
            watch.log(loss=loss)
            stage.step(loss)
        torch.optim.swa_utils.update_bn([x for x, _ in batches], averaged)
    stage.end(model, optimizer)
    stage.end(averaged)


@case()
def functional_model(stage: Stage) -> None:
    """torch.func: no optimizer, gradients by grad_and_value over a functional call."""
    model = mlp()

    def loss_of(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(torch.func.functional_call(model, parameters, (x,)), y)

    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            slopes, loss = torch.func.grad_and_value(loss_of)(dict(model.named_parameters()), x, y)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.sub_(slopes[name], alpha=0.05)
            stage.write("slopes", [s.tolist() for s in slopes.values()])
            watch.step(loss=loss)
            stage.step(loss)
    stage.end(model)


@case()
def per_sample_gradients(stage: Stage) -> None:
    """Differential privacy's pattern: vmap over grad, clipped per sample, then an ordinary optimizer."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def loss_of(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(torch.func.functional_call(model, parameters, (x[None],))[0], y)

    each = torch.func.vmap(torch.func.grad(loss_of), in_dims=(None, 0, 0))
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            slopes = each(dict(model.named_parameters()), x, y)
            for name, parameter in model.named_parameters():
                parameter.grad = slopes[name].detach().clamp(-0.1, 0.1).mean(0)
            stage.gradients(model)
            optimizer.step()
            with torch.no_grad():
                loss = F.mse_loss(model(x), y)
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def meta_learning(stage: Stage) -> None:
    """One inner step by autograd.grad through functional calls, then the outer step."""

    def loss_of(model: Any, x: Tensor, y: Tensor) -> Tensor:
        parameters = dict(model.named_parameters())
        inner = F.mse_loss(torch.func.functional_call(model, parameters, (x[:3],)), y[:3])
        slopes = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
        moved = {n: p - 0.1 * s for (n, p), s in zip(parameters.items(), slopes, strict=True)}
        return F.mse_loss(torch.func.functional_call(model, moved, (x[3:],)), y[3:])

    train(stage, mlp(), numbers(6, 5), loss_of=loss_of)


def clipped_loop(stage: Stage, clip: Any) -> None:
    model = small_resnet()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with stage.watch(model) as watch:
        for x, y in numbers(4, 1, 8, 8):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.write("norm before clipping", clip(model.parameters()))
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def clip_grad_norm(stage: Stage) -> None:
    clipped_loop(stage, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1))


@case()
def clip_grad_norm_max(stage: Stage) -> None:
    clipped_loop(stage, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1, norm_type=float("inf")))


@case()
def clip_grad_value(stage: Stage) -> None:
    clipped_loop(stage, lambda parameters: nn.utils.clip_grad_value_(parameters, 0.01))


@case()
def optimizer_in_backward(stage: Stage) -> None:
    """One optimizer per parameter, each stepped by a hook as soon as its gradient is complete."""
    model = mlp()
    optimizers = {p: torch.optim.SGD([p], lr=0.05, momentum=0.9) for p in model.parameters()}

    def hook(parameter: Tensor) -> None:
        stage.write("gradient in backward", parameter.grad)
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(hook) for p in model.parameters()]
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            watch.log(loss=loss)
            stage.step(loss)
    for handle in handles:
        handle.remove()
    stage.end(model, *optimizers.values())


@case()
def optimizers_in_sequence(stage: Stage) -> None:
    """Several optimizers on disjoint parameters, one after the other: one step."""
    model = mlp()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.05) for layer in (model[0], model[2], model[4])]
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            model.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            for optimizer in optimizers:
                optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, *optimizers)


@case()
def manual_descent(stage: Stage) -> None:
    """No optimizer object: the loop says where a step ends."""
    model = mlp()
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad, alpha=0.05)
                    parameter.grad = None
            watch.step(loss=loss)
            stage.step(loss)
    stage.end(model)


@case()
def confirmed_boundary(stage: Stage) -> None:
    """An optimizer and ``watch.step`` in the same loop: it only confirms."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.step(loss=loss, samples=6)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def hooks_of_the_user(stage: Stage) -> None:
    """Hooks of every kind that change inputs, outputs and gradients."""

    def halve(accumulated: Tensor) -> None:
        assert accumulated.grad is not None
        accumulated.grad.mul_(0.5)

    model = mlp()
    parameter = model[0].weight
    handles = [
        model[0].register_forward_pre_hook(lambda module, args: (args[0] * 1.5,)),
        model[1].register_forward_hook(lambda module, args, out: out + 0.1),
        model[2].register_full_backward_hook(lambda module, grad_in, grad_out: (grad_in[0] * 0.5,)),
        model[4].register_full_backward_pre_hook(lambda module, grad_out: (grad_out[0] * 2,)),
        parameter.register_hook(lambda grad: grad * 0.9),
        parameter.register_post_accumulate_grad_hook(halve),
    ]
    train(stage, model, numbers(6, 5))
    for handle in handles:
        handle.remove()


@case()
def optimizer_hooks_of_the_user(stage: Stage) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    optimizer.register_step_pre_hook(
        lambda o, args, kwargs: torch.nn.utils.clip_grad_value_(model.parameters(), 0.02)
    )
    optimizer.register_step_post_hook(lambda o, args, kwargs: stage.write("in the hook", model[0].weight))
    train(stage, model, numbers(6, 5), optimizer)


@case()
def state_dict_hooks(stage: Stage) -> None:
    """A state dict is saved with hooks that rename and drop, and loaded again, in mid-training."""
    model = mlp()

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, local: Any) -> None:
        for key in [k for k in state if k.startswith(prefix)]:
            state[f"{prefix}renamed.{key.removeprefix(prefix)}"] = state.pop(key)

    def restore(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key in list(state):
            state[key.removeprefix("renamed.")] = state.pop(key)

    model.register_state_dict_post_hook(rename)
    model.register_load_state_dict_pre_hook(restore)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    saved: dict[str, Any] = {}
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(numbers(6, 5)):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            if i == 3:
                saved = copy.deepcopy(model.state_dict())
                stage.write("keys", sorted(saved))
            if i == 6:
                model.load_state_dict(saved)
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def evaluation_between_steps(stage: Stage) -> None:
    """Between steps: eval() with no_grad, train() with inference_mode, and eval() with gradients."""
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with stage.watch(model) as watch:
        for x, y in numbers(4, 1, 8, 8):
            optimizer.zero_grad()
            loss = F.mse_loss(model.train()(x), y)
            with torch.no_grad():
                stage.write("no_grad", model.eval()(x))
            loss.backward()
            stage.gradients(model)
            with torch.inference_mode():
                stage.write("inference", F.mse_loss(model.train()(x), y).clone())
            optimizer.step()
            stage.write("kept graph", F.mse_loss(model.eval()(x), y))
            watch.log(loss=loss)
            stage.step(loss)
        watch.epoch(val_loss=0.5)
    stage.end(model, optimizer)


@case()
def epochs_and_batches(stage: Stage) -> None:
    """A shuffling DataLoader, noise from all three generators, warm restarts, epochs told to the watcher."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3)
    data = torch.utils.data.TensorDataset(torch.randn(24, 5), torch.randn(24, 3))
    loader = torch.utils.data.DataLoader(data, batch_size=6, shuffle=True)
    with stage.watch(model) as watch:
        for _ in range(3):
            for x, y in watch.batches(loader):
                x = x * random.uniform(0.9, 1.1) + float(np.random.normal(0, 0.01))  # noqa: NPY002, PLW2901
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss, mean=x.mean())
                stage.step(loss)
            schedule.step()
            watch.epoch(val_loss=loss.item())
    stage.end(model, optimizer)


@case()
def reinforcement(stage: Stage) -> None:
    """REINFORCE: rollouts sample from the policy without gradients, the update runs over what was sampled."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with stage.watch(model) as watch:
        for _ in range(ITERATIONS):
            place, places, moves, rewards = torch.randn(1, 5), [], [], []
            for _ in range(4):
                with torch.no_grad():
                    move = torch.distributions.Categorical(logits=model(place)).sample()
                places.append(place)
                moves.append(move)
                place = place + torch.randn(1, 5) * 0.1
                rewards.append(float(place.mean()))
            chance = torch.distributions.Categorical(logits=model(torch.cat(places)))
            loss = -(chance.log_prob(torch.cat(moves)) * torch.tensor(rewards)).mean()
            optimizer.zero_grad()
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss, reward=sum(rewards))
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def discarded_losses_and_caught_errors(stage: Stage) -> None:
    """Every third batch is thrown away after the forward pass, one raises inside it and is skipped."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batches = numbers(6, 5)
    batches[4] = (torch.randn(6, 7), batches[4][1])
    with stage.watch(model) as watch:
        for i, (x, y) in enumerate(batches):
            optimizer.zero_grad()
            try:
                loss = F.mse_loss(model(x), y)
            except RuntimeError:
                continue
            if i % 3 == 2:
                continue
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case()
def several_backward_passes(stage: Stage) -> None:
    """Two losses, two backward passes, gradients kept as zeros instead of None."""
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            optimizer.zero_grad(set_to_none=False)
            loss = mean_square(model, x, y)
            loss.backward()
            mean_square(model, -x, y).backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@case("Anomaly Detection has been enabled")
def anomaly_mode(stage: Stage) -> None:
    with torch.autograd.detect_anomaly():
        train(stage, mlp(), numbers(6, 5))
