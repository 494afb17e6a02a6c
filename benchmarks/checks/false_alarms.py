"""How often the loss checks cry wolf, and how often they miss: simulated runs through the real engine.

    python benchmarks/checks/false_alarms.py [--seeds 20] [--first-seed 0] [--only KIND …] [--show]

Every kind of curve is drawn anew for each seed. Of a healthy kind the table gives the share of runs with a
warning or worse and which checks spoke; of a faulty kind the share of runs in which one of the checks that
should see the fault gave a warning or worse after it began, and the median delay in steps.

The file is long because every kind of run is a function of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from torchwatch.check import Selection, select
from torchwatch.engine import Engine
from torchwatch.intervals import IntervalBuilder
from torchwatch.records import (
    Alert,
    Eval,
    LayerInfo,
    Layout,
    OptimizerInfo,
    ParameterInfo,
    Record,
    RunHeader,
    Step,
    batch,
)

CHECKS = (
    "loss-nonfinite", "loss-explosion", "loss-divergence", "loss-spike", "loss-plateau", "no-learning",
    "overfitting", "noisy-loss",
)  # fmt: skip

Values = npt.NDArray[np.float64]
Random = np.random.Generator


@dataclass
class Curves:
    """A run to be: the loss of every step and what was logged beside it.

    ``batched`` steps are written as one line. ``expected`` checks should see the fault begun at ``onset``.
    """

    loss: Values
    epoch_steps: int
    lr: Values | None = None
    evals: dict[int, dict[str, float | None]] = field(default_factory=dict)
    optimizers: int = 1
    classes: int = 10
    declare: dict[str, object] = field(default_factory=dict)
    interval_steps: int = 200
    batched: int = 10
    onset: int = 0
    expected: tuple[str, ...] = ()


def records(run: Curves) -> Iterator[Record]:
    """The run's lines."""
    yield RunHeader(run_id="simulated", config={"declare": run.declare})
    yield Layout(
        step=1,
        layers=[LayerInfo("head", "Linear", 100, order=0, attributes={"out_features": run.classes})],
        parameters=[ParameterInfo("head.weight", 0, [10, 10], "float32", optimizer=0, group=0)],
        optimizers=[OptimizerInfo("Adam", [{"lr": 0.001}]) for _ in range(run.optimizers)],
    )
    builder, waiting = IntervalBuilder(run.interval_steps), []
    for number, loss in enumerate(run.loss.tolist(), 1):
        rate = 1e-3 if run.lr is None else float(run.lr[number - 1])
        epoch = (number - 1) // run.epoch_steps
        step = Step(step=number, epoch=epoch, time_s=0.01 * number, loss=loss, lr=[rate])
        builder.add(step)
        waiting.append(step)
        epoch_ends = number % run.epoch_steps == 0
        closes = epoch_ends or builder.full or number == run.loss.size
        if closes or number in run.evals or len(waiting) == run.batched:
            yield batch(waiting) if len(waiting) > 1 else step
            waiting = []
        if closes:
            yield builder.close("epoch" if epoch_ends else "steps", step.time_s)
        if number in run.evals:
            yield Eval(number, epoch, step.time_s, run.evals[number])
        if epoch_ends:
            yield builder.close_epoch(epoch, number, step.time_s, run.evals.get(number, {}))


def alerts(run: Curves) -> list[Alert]:
    """What the loss checks say about it."""
    everything = select()
    engine = Engine(Selection(tuple(c for c in everything.checks if c.slug in CHECKS)))
    found = [a for r in records(run) for a in engine.feed(r)] + engine.finish()
    if engine.failed:
        raise RuntimeError(str(engine.failed))
    return found


def decay(n: int, start: float = 2.3, floor: float = 0.3, share: float = 0.17) -> Values:
    """The usual curve: floor + (start − floor)·exp(−t/τ) with τ a share of the run."""
    return floor + (start - floor) * np.exp(-np.arange(n) / (share * n))


def noisy(rng: Random, level: Values, share: float) -> Values:
    """Log-normal noise, the shape of most mini-batch losses."""
    return level * np.exp(share * rng.standard_normal(level.size))


def per_epoch(level: Values, epoch_steps: int) -> dict[int, float]:
    """Level of each epoch's end by its step."""
    return {s: float(level[s - 1]) for s in range(epoch_steps, level.size + 1, epoch_steps)}


def val(rng: Random, level: Values, epoch_steps: int, share: float, gap: float = 1.1) -> dict[int, dict]:
    """A validation loss that follows the training level at a distance, with noise."""
    points = per_epoch(level, epoch_steps)
    return {
        s: {"val_loss": v * gap * float(np.exp(share * rng.standard_normal()))} for s, v in points.items()
    }


HEALTHY: dict[str, Callable[[Random], Curves]] = {}
FAULTY: dict[str, Callable[[Random], Curves]] = {}


def healthy(make: Callable[[Random], Curves]) -> Callable[[Random], Curves]:
    """Register a kind of run about which nothing worse than a note may be said."""
    HEALTHY[make.__name__] = make
    return make


def faulty(make: Callable[[Random], Curves]) -> Callable[[Random], Curves]:
    """Register a kind of run in which something is wrong from ``onset`` on."""
    FAULTY[make.__name__] = make
    return make


@healthy
def spec_curve_30_epochs(rng: Random) -> Curves:
    share = rng.uniform(0.01, 0.02)
    level = np.repeat((0.3 + 2 * np.exp(-np.arange(30) / 5)) * np.exp(share * rng.standard_normal(30)), 40)
    return Curves(noisy(rng, level, 0.05), 40, evals=val(rng, level, 40, share))


@healthy
def spec_curve_epoch_means_only(rng: Random) -> Curves:
    level = (0.3 + 2 * np.exp(-np.arange(30) / 5)) * np.exp(rng.uniform(0.01, 0.02) * rng.standard_normal(30))
    return Curves(np.repeat(level, 20), 20, evals=val(rng, np.repeat(level, 20), 20, 0.02))


@healthy
def heavy_tails(rng: Random) -> Curves:
    level = decay(3000)
    return Curves(level * np.exp(0.3 * rng.standard_t(4, 3000)), 300, evals=val(rng, level, 300, 0.02))


@healthy
def pareto_batches(rng: Random) -> Curves:
    loss = decay(2000, 1.0, 0.5) * (1 + rng.pareto(2.0, (2000, 4)).mean(1)) / 2
    return Curves(loss, 200, classes=1)


@healthy
def hard_batches(rng: Random) -> Curves:
    loss = noisy(rng, decay(2000), 0.1) * np.where(rng.random(2000) < rng.uniform(0.02, 0.15), 4.0, 1.0)
    return Curves(loss, 200)


@healthy
def converged_to_zero(rng: Random) -> Curves:
    level = np.maximum(decay(3000, 2.3, 0.0, 0.05), 1e-4)
    return Curves(noisy(rng, level, 1.0), 150, evals=val(rng, decay(3000), 150, 0.01))


@healthy
def fast_convergence(rng: Random) -> Curves:
    return Curves(noisy(rng, decay(1500, 2.0, 1.0, 0.002), 0.08), 150, classes=1)


@healthy
def regression_batch_of_4(rng: Random) -> Curves:
    loss = decay(2500, 1.0, 0.5) * rng.chisquare(4, 2500) / 4
    return Curves(loss, 100, classes=1, evals=val(rng, decay(2500, 1.0, 0.5), 100, 0.04))


@healthy
def batch_of_1(rng: Random) -> Curves:
    return Curves(decay(3000, 2.3, 0.4) * rng.chisquare(1, 3000), 250)


@healthy
def weak_signal_regression(rng: Random) -> Curves:
    loss = decay(3000, 1.0, 0.8) * rng.chisquare(8, 3000) / 8
    return Curves(loss, 100, classes=1, evals=val(rng, decay(3000, 1.0, 0.85), 100, 0.03))


@healthy
def gan_generator(rng: Random) -> Curves:
    t = np.arange(3000)
    phase = rng.uniform(0, 6.28)
    swing = 0.5 * np.sin(t / rng.uniform(20, 200) + phase) + 0.3 * np.sin(t / 400)
    drift = np.cumsum(rng.standard_normal(3000)) * 0.01
    return Curves(noisy(rng, 1.5 * np.exp(0.6 * swing + drift), 0.15), 150, optimizers=2, classes=1)


@healthy
def gan_sum_one_optimizer_declared(rng: Random) -> Curves:
    run = gan_generator(rng)
    return dataclasses.replace(run, optimizers=1, declare={"adversarial": True})


@healthy
def wgan_critic(rng: Random) -> Curves:
    t = np.arange(3000)
    level = -5 * np.exp(-t / 600) + 2 * np.sin(t / rng.uniform(50, 300)) - 0.5
    return Curves(level + 0.4 * rng.standard_normal(3000), 150, optimizers=2, classes=1)


@healthy
def elbo_negative(rng: Random) -> Curves:
    level = -200 + 700 * np.exp(-np.arange(2000) / 300)
    return Curves(level + 15 * rng.standard_normal(2000), 100, classes=784)


@healthy
def policy_gradient_near_zero(rng: Random) -> Curves:
    loss = 0.02 * rng.standard_t(3, 2000) + 0.01 * np.sin(np.arange(2000) / 200)
    return Curves(loss, 200, classes=1)


@healthy
def step_decay(rng: Random) -> Curves:
    lr = np.repeat([0.1, 0.01, 0.001], 600)
    level = np.repeat([0.9, 0.4, 0.3], 600) + np.r_[1.4 * np.exp(-np.arange(600) / 80), np.zeros(1200)]
    scatter = {s: {"val_loss": v["val_loss"] * (rng.uniform(0.9, 1.5) if s <= 600 else 1)}
               for s, v in val(rng, level, 60, 0.03).items()}  # fmt: skip
    return Curves(noisy(rng, level, 0.08), 60, lr=lr, evals=scatter)


@healthy
def warm_restarts(rng: Random) -> Curves:
    cycle = np.r_[np.arange(300), np.arange(600), np.arange(1200)]
    length = np.repeat([300, 600, 1200], [300, 600, 1200])
    lr = 0.05 * (1 + np.cos(np.pi * cycle / length))
    base = 0.25 + 2 * np.exp(-np.arange(2100) / 150)
    level = base + 7 * np.clip(lr - 0.03, 0, None) * (np.arange(2100) > 299) * (1 - np.exp(-cycle / 15))
    return Curves(noisy(rng, level, 0.06), 60, lr=lr, evals=val(rng, level, 60, 0.03))


@healthy
def one_cycle(rng: Random) -> Curves:
    t = np.arange(1500)
    lr = np.where(t < 450, 0.04 + t / 450, np.maximum(0.0, 1.04 * (1 - (t - 450) / 1050)))
    level = 0.3 + 2 * np.exp(-t / 120) + 0.25 * np.exp(-(((t - 450) / 150) ** 2))
    return Curves(noisy(rng, level, 0.06), 75, lr=lr, evals=val(rng, level, 75, 0.02))


@healthy
def curriculum_jumps(rng: Random) -> Curves:
    level = np.concatenate([0.3 + a * np.exp(-np.arange(500) / 100) for a in (2.0, 0.6, 0.5, 0.4)])
    return Curves(noisy(rng, level, 0.08), 50)


@healthy
def fine_tuning(rng: Random) -> Curves:
    level = decay(900, 0.40, 0.30)
    return Curves(noisy(rng, level, 0.25), 60, evals=val(rng, level, 60, 0.01))


@healthy
def fine_tuning_language_model(rng: Random) -> Curves:
    level = decay(1200, 2.05, 2.00)
    return Curves(noisy(rng, level, 0.1), 1200, classes=50257)


@healthy
def short_3_by_20(rng: Random) -> Curves:
    level = decay(60)
    return Curves(noisy(rng, level, 0.15), 20, evals=val(rng, level, 20, 0.05), batched=1)


@healthy
def noisy_validation(rng: Random) -> Curves:
    level = decay(1200)
    return Curves(noisy(rng, level, 0.1), 40, evals=val(rng, level, 40, rng.uniform(0.05, 0.2)))


@healthy
def early_best_within_noise(rng: Random) -> Curves:
    level = decay(800, 2.3, 0.2)
    flat = np.full(800, 0.6)
    return Curves(noisy(rng, level, 0.1), 40, evals=val(rng, flat, 40, 0.04))


@healthy
def val_loss_up_accuracy_up(rng: Random) -> Curves:
    level = decay(1200, 2.3, 0.05)
    evals: dict[int, dict[str, float | None]] = {}
    for i, s in enumerate(range(40, 1201, 40)):
        accuracy = 0.9 - 0.5 * np.exp(-i / 10) + 0.002 * rng.standard_normal()
        evals[s] = {
            "val_loss": 0.5 + 0.02 * abs(i - 5) + 0.005 * rng.standard_normal(),
            "val_accuracy": accuracy,
        }
    return Curves(noisy(rng, level, 0.1), 40, evals=evals)


@healthy
def unshuffled_epochs(rng: Random) -> Curves:
    wave = 1 + 0.3 * np.sin(2 * np.pi * np.arange(2000) / 250)
    return Curves(noisy(rng, decay(2000) * wave, 0.1), 250)


@healthy
def saw_tooth_language_model(rng: Random) -> Curves:
    level = np.concatenate([2.4 - 0.5 * e - 0.1 * np.arange(400) / 400 for e in range(4)])
    return Curves(noisy(rng, level, 0.12), 400, classes=32000, batched=50)


@healthy
def uneven_intervals(rng: Random) -> Curves:
    return Curves(noisy(rng, decay(3450), 0.4), 230, evals=val(rng, decay(3450), 230, 0.02))


@healthy
def long_and_slow(rng: Random) -> Curves:
    return Curves(noisy(rng, decay(12000, 4.0, 2.5, 0.4), 0.06), 3000, classes=30000, batched=50)


@healthy
def drifting_plateau(rng: Random) -> Curves:
    wander = np.zeros(4000)
    for i in range(1, 4000):
        wander[i] = 0.999 * wander[i - 1] + 0.003 * rng.standard_normal()
    return Curves(noisy(rng, decay(4000) * np.exp(wander), 0.1), 200)


@healthy
def one_bad_batch(rng: Random) -> Curves:
    loss = noisy(rng, decay(1500), 0.1)
    loss[rng.integers(100, 1400, 2)] *= 30
    return Curves(loss, 100)


@faulty
def nan_at_once(rng: Random) -> Curves:
    loss = noisy(rng, decay(800), 0.1)
    onset = int(rng.integers(50, 600))
    loss[onset - 1 :] = np.nan
    return Curves(loss, 80, onset=onset, expected=("loss-nonfinite",))


@faulty
def explosion(rng: Random) -> Curves:
    loss, onset = noisy(rng, decay(800), 0.1), int(rng.integers(150, 600))
    loss[onset - 1 :] *= np.minimum(np.exp(0.3 * np.arange(801 - onset)), 1e4)
    return Curves(loss, 80, onset=onset, expected=("loss-explosion",))


@faulty
def lr_raised_to_guessing(rng: Random) -> Curves:
    loss, onset = noisy(rng, decay(1200), 0.1), int(rng.integers(300, 800))
    after = 1201 - onset
    loss[onset - 1 :] = noisy(rng, np.full(after, 2.303) + 30 * np.exp(-np.arange(after) / 2), 0.02)
    lr = np.where(np.arange(1200) < onset - 1, 1e-3, 1.0)
    return Curves(loss, 40, lr=lr, onset=onset, expected=("loss-explosion", "loss-divergence"))


@faulty
def explosion_below_first_level(rng: Random) -> Curves:
    loss, onset = noisy(rng, decay(1200), 0.1), int(rng.integers(600, 900))
    loss[onset - 1 :] = noisy(rng, np.full(1201 - onset, 1.2), 0.1)
    return Curves(loss, 60, onset=onset, expected=("loss-explosion",))


@faulty
def slow_divergence(rng: Random) -> Curves:
    level, onset = decay(1600), int(rng.integers(600, 900))
    level[onset - 1 :] *= np.exp(np.arange(1601 - onset) / 400)
    return Curves(noisy(rng, level, 0.15), 80, onset=onset, expected=("loss-divergence", "loss-explosion"))


@faulty
def divergence_from_the_start(rng: Random) -> Curves:
    level = 2.3 * np.exp(np.arange(600) / 150)
    return Curves(noisy(rng, level, 0.1), 40, onset=40, expected=("loss-divergence", "loss-explosion"))


@faulty
def negative_explosion(rng: Random) -> Curves:
    loss, onset = -200 + 700 * np.exp(-np.arange(1500) / 200) + 15 * rng.standard_normal(1500), 1000
    loss[onset - 1 :] += 5000
    return Curves(loss, 100, classes=1, onset=onset, expected=("loss-explosion",))


@faulty
def burst_of_spikes(rng: Random) -> Curves:
    loss, onset = noisy(rng, decay(1500), 0.1), int(rng.integers(400, 1400))
    loss[onset - 1 : onset + 7 : 2] *= 60
    return Curves(loss, 100, onset=onset, expected=("loss-spike", "loss-explosion"))


@faulty
def never_learns_at_ln_k(rng: Random) -> Curves:
    return Curves(noisy(rng, np.full(800, np.log(10)), 0.05), 40, onset=1, expected=("no-learning",))


@faulty
def never_learns_regression(rng: Random) -> Curves:
    return Curves(rng.chisquare(32, 4000) / 32, 100, classes=1, onset=1, expected=("no-learning",))


@faulty
def overfits(rng: Random) -> Curves:
    train = decay(1200, 2.3, 0.001, 0.12)
    t = np.arange(1200) / 1200
    level = 0.5 + 1.8 * np.exp(-t / 0.08) + 0.8 * np.clip(t - 0.25, 0, None)
    evals = {
        s: {**v, "val_accuracy": 0.85 + 0.004 * rng.standard_normal()}
        for s, v in val(rng, level, 30, 0.02, 1.0).items()
    }
    return Curves(noisy(rng, train, 0.3), 30, evals=evals, onset=360, expected=("overfitting",))


@faulty
def overfits_in_few_epochs(rng: Random) -> Curves:
    train = decay(2000, 2.0, 0.02, 0.15)
    levels = [0.60, 0.45, 0.47, 0.55, 0.63, 0.74, 0.80, 0.91, 1.0, 1.1]
    evals = {
        (i + 1) * 200: {"eval_loss": v * float(np.exp(0.01 * rng.standard_normal()))}
        for i, v in enumerate(levels)
    }
    return Curves(noisy(rng, train, 0.2), 200, evals=evals, onset=400, expected=("overfitting",))


@faulty
def noise_without_progress(rng: Random) -> Curves:
    loss = 2.3 * np.exp(0.9 * rng.standard_normal(3000))
    return Curves(loss, 100, onset=100, expected=("noisy-loss", "no-learning"))


@dataclass
class Tally:
    """What came of all seeds of a kind."""

    runs: int = 0
    alarmed: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    infos: Counter[str] = field(default_factory=Counter)
    delays: list[int] = field(default_factory=list)
    early: int = 0


def tally(make: Callable[[Random], Curves], seeds: range, *, show: bool) -> Tally:
    """Run a kind over all seeds; every other seed writes one step per line."""
    result = Tally()
    for seed in seeds:
        run = make(np.random.default_rng(seed))
        if seed % 2:
            run = dataclasses.replace(run, batched=1)
        found = [a for a in alerts(run) if a.state != "resolved"]
        loud = [a for a in found if a.severity != "info"]
        seen = [a for a in loud if a.check in run.expected and a.step >= run.onset]
        result.runs += 1
        result.alarmed += bool(seen if run.expected else loud)
        result.checks.update({a.check for a in loud})
        result.infos.update({a.check for a in found} - {a.check for a in loud})
        result.early += any(a.step < run.onset for a in loud) if run.expected else 0
        result.delays += [min(a.step for a in seen) - run.onset] if seen else []
        if show:
            for alert in loud:
                where = f"{make.__name__}#{seed} {alert.severity} {alert.check} @{alert.step}"
                print(f"    {where}: {alert.title} | {alert.detail}", file=sys.stderr)
    return result


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20, help="runs per kind (default 20)")
    parser.add_argument("--only", nargs="*", help="kinds to run (default all)")
    parser.add_argument("--show", action="store_true", help="print every warning on standard error")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (default 0)")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    total = alarmed = 0
    print(f"{'healthy':34} false  who (notes)")
    for name, make in HEALTHY.items():
        if not options.only or name in options.only:
            seen = tally(make, seeds, show=options.show)
            total, alarmed = total + seen.runs, alarmed + seen.alarmed
            print(
                f"{name:34} {seen.alarmed:>2}/{seen.runs:<3} {dict(seen.checks)} {dict(seen.infos)}",
                flush=True,
            )
    print(f"{'all healthy':34} {alarmed}/{total}\n\n{'faulty':34} found  early  median delay  who")
    for name, make in FAULTY.items():
        if not options.only or name in options.only:
            seen = tally(make, seeds, show=options.show)
            delay = int(np.median(seen.delays)) if seen.delays else -1
            share = f"{seen.alarmed:>2}/{seen.runs:<3}"
            print(f"{name:34} {share} {seen.early:>5} {delay:>13}  {dict(seen.checks)}", flush=True)


if __name__ == "__main__":
    main()
