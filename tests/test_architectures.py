"""Architectures train the same bits when watched: those of the zoo, and ``transformers`` and ``timm``, tiny.

Each is trained a few steps bare and watched from the same seed; losses, gradients, parameters, buffers,
optimizer state and the three random generators must be equal after every step, and the run file must hold as
many steps as were taken, measured. Of the two libraries a dozen run always, the others with the slow tests.
"""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from tests import zoo_shims
from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.zoo import ARCHITECTURES, CASES, Case, Silent, Stage, Watch, first_difference, structures, train
from tests.zoo_configs import PROFILED, SHORT
from tests.zoo_shims import NAMES, load, torchvision_stand_in
from tests.zoo_timm import PICTURES
from tests.zoo_transformers import LANGUAGES
from torchwatch import WatchConfig, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torchwatch.records import Record, Step

STEPS = 4

FAST = {
    "transformers": {"gpt2", "mixtral", "mamba", "t5", "big-bird", "wav2vec2", "clip"},
    "timm": {"resnetv2", "efficientnet-evonorm", "convmixer", "swin", "vit-hybrid"},
}
"""Tied weights, experts, a state space, an encoder with a decoder, drawing from numpy, parametrised weights,
two towers; standardised and gated convolutions, windows, convolutions before attention."""

ZOO = {
    **{("transformers", name): language for name, language in LANGUAGES.items()},
    **{("timm", name): picture for name, picture in PICTURES.items()},
}


def parameters() -> list[Any]:
    """Every architecture, by name; all but a dozen are slow tests."""
    return [
        pytest.param(
            library, name, id=f"{library}-{name}", marks=() if name in FAST[library] else pytest.mark.slow
        )
        for library, name in ZOO
    ]


def own_loss(outputs: Any) -> Tensor:
    """The loss that the model computed, or the mean squares of all that it put out."""
    if isinstance(outputs, Tensor):
        return outputs.square().mean()
    loss = outputs.get("loss")
    if loss is not None:
        return loss.mean()
    tensors = [value for value in outputs.values() if isinstance(value, Tensor) and value.requires_grad]
    return torch.stack([tensor.square().mean() for tensor in tensors]).sum()


def play(stage: Stage, library: str, name: str) -> None:
    """Train an architecture for a few steps."""
    libraries = dict(zip(("transformers", "timm"), load(), strict=True))
    model = ZOO[library, name].make(libraries[library])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = [(ZOO[library, name].batch(), None) for _ in range(STEPS)]
    with mock.patch("torch.seed", reseeded):
        train(stage, model, batches, optimizer, lambda m, batch, _: own_loss(m(**batch)))


def reseeded() -> int:
    """Stands for ``torch.seed``: Reformer seeds itself from the system's entropy in every forward pass."""
    seed = int(torch.randint(1 << 30, ()))
    torch.manual_seed(seed)
    return seed


def case_of(library: str, name: str) -> Case:
    """The training of an architecture. Imports first: they may draw from a generator."""
    load()
    return Case(name, functools.partial(play, library=library, name=name))


def assert_unchanged(case: Case, config: WatchConfig, path: Path) -> list[Record]:
    """Train it watched, compare, and give back what was recorded."""
    watched = case.run(functools.partial(Watcher, path=path, config=config))
    difference = first_difference(case.bare, watched)
    assert difference is None, f"{difference}; bare again: {first_difference(case.bare, case.run())}"
    records = assert_live_equals_replay(path)
    assert [step.step for step in steps_in(records)] == list(range(1, watched.steps + 1))
    return records


def measured(steps: list[Step], config: str) -> bool:
    """Whether the steps that are due have activations, and only they."""
    due = len(steps) if config == "everything" else SHORT[config].dense_steps
    return [bool(step.activations) for step in steps] == [i < due for i in range(len(steps))]


def test_there_are_enough_of_them() -> None:
    """Counted by the tree of their modules' classes, not by name: sixty of ours, sixty of each library."""
    assert len(structures([*CASES.values(), *ARCHITECTURES.values()])) >= 60
    assert len(LANGUAGES) >= 60
    assert len(PICTURES) >= 60
    for library, names in FAST.items():
        assert names <= {name for owner, name in ZOO if owner == library}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_of_ours_trains_the_same_when_watched(name: str, tmp_path: Path) -> None:
    for config in SHORT:
        steps = steps_in(assert_unchanged(ARCHITECTURES[name], SHORT[config], tmp_path / f"{config}.jsonl"))
        assert measured(steps, config), config


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_one_of_ours_trains_the_same_when_profiled(name: str, tmp_path: Path) -> None:
    records = assert_unchanged(ARCHITECTURES[name], PROFILED, tmp_path / "profiled.jsonl")
    assert any(record.kind == "profile" for record in records)


@pytest.mark.parametrize(("library", "name"), parameters())
def test_an_architecture_trains_the_same_when_watched(library: str, name: str, tmp_path: Path) -> None:
    case = case_of(library, name)
    for config in SHORT:
        steps = steps_in(assert_unchanged(case, SHORT[config], tmp_path / f"{config}.jsonl"))
        assert len(steps) == STEPS
        assert all(step.loss is not None for step in steps), config
        assert config != "everything" or all(step.grad_norm is not None for step in steps)
        assert measured(steps, config), config


@contextmanager
def drawing(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    """Draws a number in the last layer that runs."""
    handle = model.register_forward_hook(lambda *args: torch.rand(1) and None)
    yield Silent()
    handle.remove()


@contextmanager
def rounding(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    """Changes one bit of one parameter."""
    yield Silent()
    parameter = next(p for p in model.parameters() if p.dtype is torch.float32 and p.numel())
    parameter.detach().view(-1)[:1].view(torch.int32).bitwise_xor_(1)


@pytest.mark.parametrize(
    ("saboteur", "caught_at"), [(drawing, "step 1: torch generator"), (rounding, f"step {STEPS}: state")]
)
@pytest.mark.parametrize(("library", "name"), [("transformers", "gpt2"), ("timm", "swin")])
def test_the_comparison_catches(saboteur: Watch, caught_at: str, library: str, name: str) -> None:
    case = case_of(library, name)
    difference = first_difference(case.bare, case.run(saboteur))
    assert difference is not None
    assert caught_at in difference


def test_no_stand_in_is_left_behind() -> None:
    """What is imported later, here or by the host, must not find a torchvision that is none."""
    load()
    for name in NAMES:
        found = sys.modules.get(name)
        assert found is None or found.__doc__ != zoo_shims.__doc__


def test_the_stand_in_says_what_it_is() -> None:
    with torchvision_stand_in():
        from torchvision.ops.misc import FrozenBatchNorm2d
    if FrozenBatchNorm2d.__init__ is zoo_shims._refuse:
        with pytest.raises(NotImplementedError, match="torchvision is not installed"):
            FrozenBatchNorm2d(3)
