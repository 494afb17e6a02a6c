"""Ablation of a model's blocks: their output replaced by its mean over the samples, or by zero."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks

_MOST = 64
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The model's blocks by full name: its children with parameters, at most 64.

    Containers without a forward pass count as their entries, and a model that only wraps another as that one.
    """
    prefix = ""
    while True:
        found = {prefix + n: m for n, m in _opened(model) if any(True for _ in m.parameters())}
        inner = next(iter(found.items()), None)
        if len(found) != 1 or inner is None or not list(inner[1].children()):
            return dict(itertools.islice(found.items(), _MOST))
        prefix, model = f"{inner[0]}.", inner[1]


def _opened(model: nn.Module) -> list[tuple[str, nn.Module]]:
    children: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if isinstance(child, _CONTAINERS):
            children += [(f"{name}.{inner}", m) for inner, m in _opened(child)]
        else:
            children.append((name, child))
    return children


@torch.no_grad()
def errors_without(case: Case, block: nn.Module | None, fill: str, batch: int) -> Tensor | None:
    """Error of each sample (N,) with a block's output replaced, on the CPU; the hook is removed afterwards.

    Args:
        case: the case.
        block: None for the model as it is.
        fill: ``mean``: over the samples of a forward pass; or ``zero``.
        batch: samples per forward pass.

    Returns:
        None where the block did not run, or gives out nothing that could be replaced.
    """
    replaced, count = 0, 0

    def replace(_module: nn.Module, _args: Any, output: Any) -> Any:
        nonlocal replaced
        new, did = _replaced(output, count, fill)
        replaced += did
        return new

    def work(start: int, end: int) -> Tensor:
        nonlocal count
        count = end - start
        outputs = case.forward({k: v[start:end] for k, v in case.samples.inputs.items()})
        return case.errors(outputs, case.wanted_targets[start:end]).cpu()

    handle = block.register_forward_hook(replace) if block is not None else None
    try:
        found = torch.cat([part for _, _, part in in_chunks(work, len(case.samples), batch)])
    finally:
        if handle is not None:
            handle.remove()
    return found if replaced or block is None else None


def _replaced(output: Any, count: int, fill: str) -> tuple[Any, int]:
    """The output with its floating tensors replaced, and how many there were."""
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            return output, 0
        return _filled(output, count, fill)
    if type(output) in (tuple, list):
        parts = [_replaced(o, count, fill) for o in output]
        return type(output)(p for p, _ in parts), sum(n for _, n in parts)
    if type(output) is dict:
        named = {k: _replaced(v, count, fill) for k, v in output.items()}
        return {k: v for k, (v, _) in named.items()}, sum(n for _, n in named.values())
    return output, 0


def _filled(output: Tensor, count: int, fill: str) -> tuple[Tensor, int]:
    """Along the first axis that is as long as the batch; recurrent layers have it second."""
    if fill == "zero":
        return torch.zeros_like(output), 1
    axis = next((i for i, n in enumerate(output.shape) if n == count), None)
    if axis is None:
        return output, 0
    return output.mean(axis, keepdim=True).expand_as(output).contiguous(), 1
