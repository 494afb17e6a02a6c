"""Other people's published rules on the same trainings, re-implemented from their documentation.

Each rule gets what a tap saw and gives the step at which it first speaks, or None. No rule is told which
training has a fault, and none is tuned: the limits are the published defaults.

Sources
    Epoch rules: the literal triggers of many training guides.
    Amazon SageMaker Debugger: "List of Debugger built-in rules", docs.aws.amazon.com/sagemaker. The rules for
    deep learning that need nothing but the training itself; PoorWeightInitialization is left out (the page
    does not say how its three conditions are joined), and so are those that compare runs or look at images.
    Losses are given to it at every step and tensors at every 20th; its default is every 500th, longer than
    these trainings.
    AutoTrainer: Zhang, Zhai, Fang, Ma, Shen, Liu, Ma: "AUTOTRAINER: An Automatic DNN Training Problem
    Detection and Repair System", ICSE 2021, with the default parameters of its repository (β1 1e-3, β2 1e-4,
    β3 70, γ 0.7, ζ 0.03, η 0.2, δ 0.01, Θ 0.7; judged from 30 % of the epochs on). Its accuracies are the
    validation's; where a training has none, only the symptom that needs none (not a number) is judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from benchmarks.faults.tap import Tap

Rule = Callable[[Tap], int | None]


def _epoch_means(tap: Tap, name: str) -> list[tuple[int, float]]:
    return [(int(e["step"]), e[name]) for e in tap.epochs if name in e]


def two_rises(tap: Tap) -> int | None:
    """The training loss rises in two epochs in a row."""
    rows = _epoch_means(tap, "loss")
    for a, b, c in zip(rows, rows[1:], rows[2:], strict=False):
        if a[1] < b[1] < c[1]:
            return c[0]
    return None


def val_up_train_down(tap: Tap) -> int | None:
    """The validation loss rises while the training loss falls, twice."""
    rows = [(int(e["step"]), e["loss"], e["val_loss"]) for e in tap.epochs if "loss" in e and "val_loss" in e]
    count = 0
    for before, now in pairwise(rows):
        count += now[1] < before[1] and now[2] > before[2]
        if count == 2:
            return now[0]
    return None


def plateau(tap: Tap) -> int | None:
    """Less than 1 % improvement over three epochs."""
    rows = _epoch_means(tap, "loss")
    for before, now in zip(rows, rows[3:], strict=False):
        if before[1] - now[1] < 0.01 * abs(before[1]):
            return now[0]
    return None


def marginal_gain(tap: Tap) -> int | None:
    """The last epoch brought less than 5 % of all that was gained."""
    rows = _epoch_means(tap, "loss")
    for before, now in pairwise(rows[1:]):
        if before[1] - now[1] < 0.05 * (rows[0][1] - now[1]):
            return now[0]
    return None


def loss_not_decreasing(tap: Tap, num_steps: int = 10, diff_percent: float = 0.1) -> int | None:
    """Every 10 steps the loss must be 0.1 % below that of 10 steps before."""
    for i in range(num_steps, len(tap.losses), num_steps):
        before, now = tap.losses[i - num_steps], tap.losses[i]
        if not before - now >= diff_percent / 100 * abs(before):
            return i + 1
    return None


def overfit(tap: Tap, patience: int = 1, ratio_threshold: float = 0.1) -> int | None:
    """(validation − training loss) / training loss exceeds 0.1 more than ``patience`` times."""
    over = 0
    for e in tap.epochs:
        if "loss" in e and "val_loss" in e:
            over = over + 1 if e["val_loss"] - e["loss"] > ratio_threshold * abs(e["loss"]) else 0
            if over > patience:
                return int(e["step"])
    return None


def overtraining(tap: Tap, delta: float = 0.01) -> int | None:
    """Neither 5 points of the training loss nor 10 of the validation loss brought an improvement of 0.01."""
    for name, patience in (("loss", 5), ("val_loss", 10)):
        best, waited = math.inf, 0
        for step, value in _epoch_means(tap, name):
            waited = 0 if value < best - delta else waited + 1
            best = min(best, value)
            if waited >= patience:
                return step
    return None


def _parameters(tap: Tap, wrong: Callable[[dict[str, float]], bool]) -> int | None:
    for row in tap.tensors:
        if any(wrong(p) for p in row["parameters"].values()):
            return int(row["step"])
    return None


def _outputs(tap: Tap, wrong: Callable[[dict[str, float]], bool]) -> int | None:
    for row in tap.tensors:
        if any(wrong(o) for o in row["outputs"].values()):
            return int(row["step"])
    return None


def vanishing_gradient(tap: Tap) -> int | None:
    """The mean absolute gradient of a tensor is below 1e-7."""
    return _parameters(tap, lambda p: p.get("grad_mean_abs", 1.0) < 1e-7)


def exploding_tensor(tap: Tap) -> int | None:
    """A saved tensor holds NaN or infinity."""
    found = [
        _parameters(tap, lambda p: bool(p["nan"]) or not math.isfinite(p.get("grad_norm", 0.0))),
        _outputs(tap, lambda o: bool(o["nan"])),
        next((i + 1 for i, v in enumerate(tap.losses) if not math.isfinite(v)), None),
    ]
    return min((f for f in found if f is not None), default=None)


def weight_update_ratio(tap: Tap) -> int | None:
    """An update above 10 or below 1e-8 of the weight."""
    return _parameters(tap, lambda p: "update" in p and not 1e-8 <= p["update"] <= 10)


def dead_relu(tap: Tap) -> int | None:
    """More than half of a layer's ReLU units are active less than 1 % of the time."""
    return _outputs(tap, lambda o: o.get("type") == "ReLU" and o["inactive"] > 0.5)


def saturated_activation(tap: Tap) -> int | None:
    """More than half of a tanh or sigmoid layer's units are at the bounds for 99 % of the samples."""
    return _outputs(tap, lambda o: o.get("saturated", 0.0) > 0.5)


def all_zero(tap: Tap) -> int | None:
    """A weight or an output tensor is zero throughout."""
    found = [
        _parameters(tap, lambda p: p["zero"] == 1 and p["size"] > 1),
        _outputs(tap, lambda o: o["zero"] == 1),
    ]
    return min((f for f in found if f is not None), default=None)


def unchanged_loss(tap: Tap, num_steps: int = 3) -> int | None:
    """The loss is the same (relative 1e-5, absolute 1e-8) over three steps."""
    for i in range(num_steps, len(tap.losses)):
        last = tap.losses[i - num_steps : i + 1]
        if all(math.isclose(v, last[0], rel_tol=1e-5, abs_tol=1e-8) for v in last):
            return i + 1
    return None


def autotrainer(tap: Tap) -> int | None:
    """Six symptoms: exploding or vanishing gradients, dying ReLU, unstable loss, no or slow convergence."""
    total, accuracies = len(tap.epochs), []
    for number, e in enumerate(tap.epochs, 1):
        if (
            not all(math.isfinite(e.get(n, 0.0)) for n in ("loss", "val_loss"))
            or e.get("val_loss", 0.0) >= 1e5
        ):
            return int(e["step"])
        if "val_accuracy" not in e:
            continue
        accuracies.append(e["val_accuracy"])
        if number < 0.3 * total:
            continue
        if max(accuracies) < 0.7 or _slow(accuracies):
            if _slow(accuracies) or _bad_gradients(tap, int(e["step"])):
                return int(e["step"])
        elif _unstable(accuracies):
            return int(e["step"])
    return exploding_tensor(tap)


def _slow(accuracies: list[float]) -> bool:
    return max((b - a for a, b in pairwise(accuracies)), default=0.0) < 0.01


def _unstable(accuracies: list[float], zeta: float = 0.03, eta: float = 0.2) -> bool:
    triples = list(zip(accuracies, accuracies[1:], accuracies[2:], strict=False))
    highs = [b for a, b, c in triples if b >= a and b >= c]
    lows = [b for a, b, c in triples if b <= a and b <= c]
    return sum(h - low >= zeta for h, low in zip(highs, lows, strict=False)) >= max(eta * len(accuracies), 1)


def _bad_gradients(tap: Tap, step: int) -> bool:
    rows = [r for r in tap.tensors if r["step"] <= step]
    kernels = [
        p
        for n, p in (rows[-1]["parameters"] if rows else {}).items()
        if n.endswith("weight") and "grad_norm" in p
    ]
    if len(kernels) < 2 or not kernels[-1]["grad_norm"]:
        return False
    first, ratio = kernels[0]["grad_norm"], kernels[0]["grad_norm"] / kernels[-1]["grad_norm"]
    zero = sum(p["grad_zero"] * p["size"] for p in kernels) / sum(p["size"] for p in kernels)
    return (ratio < 1e-3 and first < 1e-4) or ratio > 70 or zero >= 0.7


RULES: dict[str, dict[str, Rule]] = {
    "epoch rules": {
        "two rises in a row": two_rises, "validation up, training down, twice": val_up_train_down,
        "below 1 % in 3 epochs": plateau, "marginal gain below 5 %": marginal_gain,
    },
    "SageMaker Debugger": {
        "LossNotDecreasing": loss_not_decreasing, "Overfit": overfit, "Overtraining": overtraining,
        "VanishingGradient": vanishing_gradient, "ExplodingTensor": exploding_tensor,
        "WeightUpdateRatio": weight_update_ratio, "DeadRelu": dead_relu, "AllZero": all_zero,
        "SaturatedActivation": saturated_activation, "UnchangedTensor": unchanged_loss,
    },
    "AutoTrainer": {"six symptoms": autotrainer},
}  # fmt: skip


def spoken(tap: Tap) -> dict[str, int]:
    """Rule → the step at which it first spoke, for those that did."""
    said = {f"{g}: {n}": rule(tap) for g, rules in RULES.items() for n, rule in rules.items()}
    return {name: step for name, step in said.items() if step is not None}
