"""Ablation behind the first layer.

Where the main input goes into one convolution or linear layer and nowhere else, an ablated element changes
that layer's output by the layer's answer to the difference alone: for one channel of 129 a 129th of the work.
The output of all samples is computed once, each ablation adds its change, and the model runs on from there.

Nothing is taken on trust. That the rest of the model never looks at the input is tried with an input of NaN;
that the changed output leads to the same predictions is tried on an element of each part, against the whole
model. Where either fails, or nothing is gained, the whole model runs.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchwatch.examinations._ablation_batch import clock_for
from torchwatch.examinations._ablation_elements import Piece
from torchwatch.examinations._ablation_fills import Fills, Job
from torchwatch.examinations._ablation_passes import InputFeed
from torchwatch.examinations.case import Case

_CONVOLUTIONS: dict[type[nn.Module], Any] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
_TRIED = 64
"""Samples of the trials."""
_TOLERANCE = 1e-3
"""Largest difference of predictions, relative to their size: more than rounding to TF32 brings about."""
_GAIN = 0.75
"""The rest of the model has to take less than this share of the time of the whole."""
_MUCH_BYTES = 256 << 20


class StandIn(nn.Module):
    """Stands where the first layer was and gives out what was prepared."""

    prepared: Tensor

    def forward(self, *_: Any) -> Tensor:
        """The prepared output."""
        return self.prepared


@dataclass(frozen=True)
class _First:
    """The layer that takes the main input, and how: as it is, or flattened."""

    name: str
    layer: nn.Module
    flat: bool
    outputs: int


class ShortcutFeed:
    """Feeds the first layer's output.

    Args:
        case: the case.
        fills: of its main input.
        first: the first layer.
        twin: the model with ``stand_in`` in the layer's place, and its very parameters.
        stand_in: see there.
    """

    def __init__(self, case: Case, fills: Fills, first: _First, twin: nn.Module, stand_in: StandIn) -> None:
        self._case, self._fills, self._layer, self._flat = case, fills, first.layer, first.flat
        self._twin, self._stand_in = twin, stand_in
        self._unseen = torch.full_like(fills.home[:1], float("nan"))
        chunks = fills.home.split(case.options.chunk)
        self.home = torch.cat([self._layer(c.flatten(1) if self._flat else c) for c in chunks])

    def fill(self, rows: Tensor, job: Job) -> None:
        """Add what an ablation changes in the output of the layer."""
        for piece in job.element.pieces:
            difference = self._fills.values(piece, job) - self._fills.home[(slice(None), *piece)]
            place, change = self._change(piece, difference)
            if change is not None:
                rows[place] += change

    def restore(self, rows: Tensor, job: Job) -> None:
        """Put back the output for the samples' own values."""
        for piece in job.element.pieces:
            place, _ = self._change(piece, None)
            rows[place].copy_(self.home[place])

    def forward(self, rows: Tensor, others: dict[str, Tensor]) -> Tensor:
        """Canonical outputs of a batch."""
        self._stand_in.prepared = rows
        main = self._unseen.expand(rows.shape[0], *self._unseen.shape[1:])
        names = self._case.samples.inputs
        return self._case.forward({k: main if k == self._case.main else others[k] for k in names}, self._twin)

    def _change(self, piece: Piece, difference: Tensor | None) -> tuple[tuple[Any, ...], Tensor | None]:
        """Where in the output a piece of the input counts, and what a difference adds there."""
        layer: Any = self._layer
        if isinstance(layer, nn.Linear):
            if self._flat:
                shape = self._fills.home.shape[1:]
                columns = torch.arange(shape.numel(), device=self.home.device).view(shape)[piece].flatten()
                weight = layer.weight.index_select(1, columns)
                change = None if difference is None else functional.linear(difference.flatten(1), weight)
                return (slice(None),), change
            change = None if difference is None else functional.linear(difference, layer.weight[:, piece[-1]])
            return (slice(None), *piece[:-1]), change
        spans = [
            _reach(layer, i, s, size, out)
            for i, (s, size, out) in enumerate(
                zip(piece[1:], self._fills.home.shape[2:], self.home.shape[2:], strict=True)
            )
        ]
        place = (slice(None), slice(None), *(slice(s.first, s.end) for s in spans))
        if difference is None or any(s.first >= s.end for s in spans):
            return place, None
        padded = functional.pad(difference, [n for s in reversed(spans) for n in (s.before, s.after)])
        convolve = _CONVOLUTIONS[type(layer)]
        weight = layer.weight[:, piece[0]]
        return place, convolve(padded, weight, None, layer.stride, 0, layer.dilation)


@dataclass(frozen=True)
class _Span:
    """Outputs first … end - 1 that a stretch of the input reaches, and the zeros they need around it."""

    first: int
    end: int
    before: int
    after: int


def _reach(layer: Any, axis: int, span: slice, size: int, out: int) -> _Span:
    """Output o takes the inputs o·stride - padding + k·dilation, k = 0 … kernel - 1."""
    low, high, _ = span.indices(size)
    stride, wide = layer.stride[axis], (layer.kernel_size[axis] - 1) * layer.dilation[axis]
    padding = (
        {"same": wide // 2, "valid": 0}[layer.padding]
        if isinstance(layer.padding, str)
        else layer.padding[axis]
    )
    first = max(0, -(-(low + padding - wide) // stride))
    end = min(out, (high - 1 + padding) // stride + 1)
    begins, ends = first * stride - padding, (end - 1) * stride - padding + wide + 1
    return _Span(first, max(first, end), low - begins, ends - high)


@torch.no_grad()
def shortcut(case: Case, fills: Fills, trials: Sequence[Job]) -> tuple[str, ShortcutFeed] | None:
    """A feed behind the first layer and that layer's name, where there is one that holds and gains time.

    Args:
        case: the case.
        fills: of its main input.
        trials: ablations that are done both ways.
    """
    home = fills.home
    if not home.is_floating_point() or home.device != case.device:
        return None
    try:
        return _found(case, fills, trials)
    except Exception:  # noqa: BLE001 - whatever a foreign model cannot do this way, it does the usual way
        return None


def _found(case: Case, fills: Fills, trials: Sequence[Job]) -> tuple[str, ShortcutFeed] | None:
    home, whole = fills.home, InputFeed(case, fills)
    count = min(_TRIED, case.options.chunk)
    rows = home[:count].clone(memory_format=torch.contiguous_format)
    others = {k: v[:count] for k, v in case.samples.inputs.items() if k != case.main}
    first = _first_layer(case, whole, rows, others)
    if first is None or first.outputs * len(home) * 4 > max(_MUCH_BYTES, 8 * home.numel()):
        return None
    twin, stand_in = _twin(case.model, first.layer)
    feed = ShortcutFeed(case, fills, first, twin, stand_in)
    holds = all(_agree(feed, whole, others, j, count) for j in trials) and _gains(feed, whole, others, count)
    return (first.name, feed) if holds else None


def _first_layer(case: Case, whole: InputFeed, rows: Tensor, others: dict[str, Tensor]) -> _First | None:
    """The one layer that is given the main input, if it is called once and is one of those we can add to."""
    calls: Counter[str] = Counter()
    found: list[_First] = []

    def listener(name: str) -> Any:
        def note(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            taken = args[0] if args else None
            if isinstance(taken, Tensor) and taken.data_ptr() == rows.data_ptr() and taken.is_contiguous():
                flat = taken.shape != rows.shape
                if not flat or (isinstance(layer, nn.Linear) and taken.shape == rows.flatten(1).shape):
                    found.append(_First(name, layer, flat, output.shape[1:].numel()))

        return note

    handles = [
        layer.register_forward_hook(listener(name))
        for name, layer in case.model.named_modules()
        if name and _can_be_added_to(layer)
    ]
    try:
        whole.forward(rows, others)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if len(found) == 1 and calls[found[0].name] == 1 else None


def _can_be_added_to(layer: Any) -> bool:
    """Whether the layer is linear in its input and nobody else has a hand in it."""
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        return False
    if type(layer) is nn.Linear:
        return True
    return type(layer) in _CONVOLUTIONS and layer.groups == 1 and layer.padding_mode == "zeros"


def _twin(model: nn.Module, layer: nn.Module) -> tuple[nn.Module, StandIn]:
    """The model's structure once more, on the very same parameters, without the layer."""
    memo: dict[int, Any] = {id(t): t for t in itertools.chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, memo)
    copied, stand_in = memo[id(layer)], StandIn().eval()
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if module is copied:
            parent, _, leaf = name.rpartition(".")
            setattr(twin.get_submodule(parent), leaf, stand_in)
    return twin, stand_in


def _agree(feed: ShortcutFeed, whole: InputFeed, others: dict[str, Tensor], job: Job, count: int) -> bool:
    """Whether an ablation leads to the same predictions both ways."""
    changed, rows = whole.home.clone(), feed.home.clone()
    whole.fill(changed, job)
    feed.fill(rows, job)
    expected = whole.forward(changed[:count], others)
    got = feed.forward(rows[:count], others)
    return bool((expected - got).abs().max() <= _TOLERANCE * expected.abs().max())


def _gains(feed: ShortcutFeed, whole: InputFeed, others: dict[str, Tensor], count: int) -> bool:
    """Whether the rest of the model is clearly faster than all of it, on a few samples."""
    taken: dict[int, float] = {}
    clock = clock_for(feed.home.device)
    feeds: tuple[ShortcutFeed | InputFeed, ...] = (feed, whole)
    for _, (i, one) in itertools.product(range(4), enumerate(feeds)):
        rows = one.home[:count].clone()
        started = clock()
        one.forward(rows, others)
        if rows.device.type != "cpu":
            torch.accelerator.synchronize(rows.device)
        taken[i] = min(taken.get(i, float("inf")), clock() - started)
    return taken[0] < _GAIN * taken[1]
