"""Attention rolled out through the layers of a transformer to its input.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: each layer's attention, averaged over
heads, is mixed half and half with the residual connection, and the layers are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchwatch.examinations.chunks import in_chunks
from torchwatch.examinations.examination import NotApplicable
from torchwatch.results.layer_attributions import Rollout

if TYPE_CHECKING:
    from torchwatch.examinations._explained import Subject

_ROWS = 32
_MOST_PLACES = 1024
_CAUSAL = 1e-6


def roll_out(subject: Subject, model: nn.Module) -> Rollout:
    """Roll out self-attention that modules return, or would return if asked.

    Args:
        subject: samples.
        model: a copy of the model, free to change.

    Raises:
        NotApplicable: no module gives attention weights, or their sizes do not fit one another.
    """
    _make_eager(model)
    total: Tensor | None = None
    names: tuple[str, ...] = ()

    def work(start: int, end: int) -> tuple[tuple[str, ...], Tensor]:
        return _rolled_out_rows(subject, model, slice(start, end))

    for _, _, (found, matrices) in in_chunks(work, len(subject), _ROWS):
        names = found
        total = matrices.sum(0) + (0 if total is None else total)
    assert total is not None
    matrix = (total / len(subject)).cpu().numpy()
    case = subject.case
    shape = case.samples.inputs[case.main].shape[1:]
    axis = next((a for a, n in zip(case.axes, shape, strict=True) if n == len(matrix)), "place")
    later = float(torch.from_numpy(matrix).triu(1).abs().max()) if len(matrix) > 1 else 1.0
    return Rollout(names, axis, matrix, matrix.mean(0), later < _CAUSAL)


def rolled_out(attentions: list[Tensor]) -> Tensor:
    """The product of the layers' attentions with their residual connections.

    Args:
        attentions: from input to output, averaged over heads (n, T, T) each.

    Returns:
        What each output place (row) draws from each input place (n, T, T); rows sum to 1.
    """
    places = attentions[0].shape[-1]
    same = torch.eye(places, dtype=torch.float64, device=attentions[0].device)
    product = same.expand_as(attentions[0])
    for attention in attentions:
        mixed = (attention.double() + same) / 2
        product = (mixed / mixed.sum(-1, keepdim=True)) @ product
    return product


def _rolled_out_rows(subject: Subject, model: nn.Module, rows: slice) -> tuple[tuple[str, ...], Tensor]:
    main, extra = subject.rows(rows)
    with _captured(model, len(main)) as seen, torch.no_grad():
        subject.model(model)(main, *extra)
    if not seen:
        raise NotApplicable("no module gives square attention weights of each sample")
    sizes = {a.shape for a in seen.values()}
    if len(sizes) > 1:
        raise NotApplicable(
            "its attention layers have different numbers of places, which cannot be multiplied"
        )
    if next(iter(sizes))[-1] > _MOST_PLACES:
        raise NotApplicable(f"its attention has more than {_MOST_PLACES} places")
    return tuple(seen), rolled_out(list(seen.values()))


def _make_eager(model: nn.Module) -> None:
    """Let Hugging Face models compute attention in the way that returns its weights."""
    for module in model.modules():
        choose = getattr(module, "set_attn_implementation", None)
        if callable(choose):
            choose("eager")
            return


@contextmanager
def _captured(model: nn.Module, samples: int) -> Iterator[dict[str, Tensor]]:
    """Self-attention of every module that returns it, averaged over heads (n, T, T), by name."""
    seen: dict[str, Tensor] = {}
    kept: list[Tensor] = []  # alive, so that another layer's weights cannot lie at the same address
    handles = []
    for name, module in model.named_modules():

        def note(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
            for part in output[1:] if isinstance(output, tuple) else ():
                if _is_attention(part, samples) and all(part.data_ptr() != k.data_ptr() for k in kept):
                    kept.append(part)
                    seen[name] = (part.mean(1) if part.ndim == 4 else part).detach()

        handles.append(module.register_forward_hook(note))
        if isinstance(module, nn.MultiheadAttention):
            handles.append(module.register_forward_pre_hook(_ask_for_weights, with_kwargs=True))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield seen
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()


def _ask_for_weights(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if len(args) > 4:  # need_weights was given by place
        return (*args[:4], True, *args[5:]), {**kwargs, "average_attn_weights": True}
    return args, {**kwargs, "need_weights": True, "average_attn_weights": True}


def _is_attention(part: Any, samples: int) -> bool:
    if not isinstance(part, Tensor) or part.ndim not in (3, 4) or not part.is_floating_point():
        return False
    if part.shape[0] != samples or part.shape[-1] != part.shape[-2] or part.numel() == 0:
        return False
    sums = part.float().sum(-1)
    return bool((part >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
