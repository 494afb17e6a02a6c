"""Sees every attention of a forward pass: full weights, which keys count, and whose forward it was in.

Nothing of the model is changed. A function mode sees what the pass calls:

* ``torch.nn.functional.multi_head_attention_forward`` (``nn.MultiheadAttention``) is asked for its
  weights per head, and the caller gets what it asked for;
* of ``scaled_dot_product_attention``, which yields no weights, they are recomputed from queries and keys;
* a softmax over the last axis of scores is attention where code computes it by hand (Hugging Face's eager
  attention, whose ``output_attentions`` these are; T5, DeBERTa, timm without fused attention);
* what attention modules return besides their output is read where none of these was seen.

Compiled parts run eagerly meanwhile, and the fused path of ``nn.TransformerEncoderLayer``, which calls
none of these functions, is off. Kernels of other packages (FlashAttention, ``flex_attention``) are not seen.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torchwatch.examinations._attention_shapes import (
    SUMS,
    looks_like_weights,
    of_samples,
    recomputed,
    valid_of_scores,
    valid_of_weights,
    without_head,
)
from torchwatch.probes._attention import arguments
from torchwatch.probes.attention import attends

_SOFTMAX = frozenset({functional.softmax, torch.softmax, Tensor.softmax})
_PRODUCTS = frozenset({torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__})
_FORWARD = inspect.signature(functional.multi_head_attention_forward)

OBSERVED = "nn.MultiheadAttention, scaled_dot_product_attention, a softmax over scores, returned weights"


@dataclass(slots=True, eq=False)
class Call:
    """Attention of one call.

    Attributes:
        name: full name of the module in whose forward it was, ``#2`` … where that made several calls in one
            pass; the class of the model for the model's own forward.
        source: ``need_weights``, ``recomputed`` (from queries and keys), ``softmax`` or ``returned``.
        weights: (N, heads, queries, keys), float32 or wider, detached; queries of several windows of a sample
            lie behind each other.
        valid: which keys a query may attend to, of the same shape; None where all are.
        cross: whether keys come from another sequence than queries; None where that cannot be seen.
        ends: which tensors queries and keys came from, by identity; None where unknown.
    """

    name: str
    source: str
    weights: Tensor
    valid: Tensor | None
    cross: bool | None = None
    ends: tuple[int, int] | None = None


Listener = Callable[[Call], None]
Silenced = tuple[str, int]
"""Name of a call, and the head whose output is set to zero."""


@dataclass(slots=True)
class _Frame:
    """A module in progress; ``pending``: a softmax that may be attention, and its scores."""

    module: nn.Module
    name: str
    attended: bool = False
    pending: tuple[Tensor, Tensor] | None = None


class Watch(TorchFunctionMode):
    """What is seen of one pass of ``samples`` samples; ``unread`` counts calls of a shape not understood."""

    def __init__(self, model: nn.Module, samples: int, listen: Listener, silence: Silenced | None) -> None:
        super().__init__()
        self._samples, self._listen, self._silence = samples, listen, silence
        self.unread = 0
        self._frames: list[_Frame] = [_Frame(model, type(model).__name__)]
        self._numbers: dict[str, int] = {}
        self._alive: list[Tensor] = []  # tensors whose identity was noted must not give it to another

    # ------------------------------------------------------------------ whose forward

    def starts(self, module: nn.Module, name: str) -> None:
        self._frames.append(_Frame(module, name))

    def ended(self, output: Any) -> None:
        frame = self._frames.pop()
        if not frame.attended and isinstance(output, (tuple, list)) and len(output) > 1:
            frame.attended = self._returned(frame, output[1:])
        self._frames[-1].attended |= frame.attended

    def _attentive(self) -> bool:
        return any(attends(f.module) for f in self._frames)

    def _next_name(self, frame: _Frame) -> str:
        frame.attended = True
        number = self._numbers[frame.name] = self._numbers.get(frame.name, 0) + 1
        return frame.name if number == 1 else f"{frame.name}#{number}"

    # ------------------------------------------------------------------ what is called

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            return self._multihead(func, args, kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._fused(func(*args, **kwargs), arguments(args, kwargs))
        if func in _SOFTMAX:
            return self._softmax(func(*args, **kwargs), args, kwargs)
        if func in _PRODUCTS:
            return self._product(func, args, kwargs)
        return func(*args, **kwargs)

    def _multihead(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _FORWARD.bind(*args, **kwargs)
        given.apply_defaults()
        name = self._next_name(self._frames[-1])
        if self._silence is not None and self._silence[0] != name:
            return func(*args, **kwargs)
        asked, averaged = given.arguments["need_weights"], given.arguments["average_attn_weights"]
        given.arguments.update(need_weights=True, average_attn_weights=False)
        if given.arguments["is_causal"] and given.arguments["attn_mask"] is not None:
            given.arguments["is_causal"] = False  # the mask says the same
        if self._silence is not None:
            weight = given.arguments["out_proj_weight"].detach().clone()
            width = weight.shape[1] // given.arguments["num_heads"]
            weight[:, self._silence[1] * width : (self._silence[1] + 1) * width] = 0
            given.arguments["out_proj_weight"] = weight
        output, weights = func(*given.args, **given.kwargs)
        seen = of_samples(weights.detach(), self._samples)
        if seen is None:
            self.unread += 1
        else:
            query, key = given.arguments["query"], given.arguments["key"]
            self._alive += [query, key]
            ends = (id(query), id(key))
            valid = valid_of_weights(seen)
            self._listen(Call(name, "need_weights", seen, valid, ends[0] != ends[1], ends))
        if not asked:
            return output, None
        return output, weights.mean(-3) if averaged else weights

    def _fused(self, result: Tensor, given: dict[str, Any]) -> Tensor:
        query, key = given["query"], given["key"]
        if query.is_nested or key.is_nested or query.dim() < 2:
            self.unread += 1
            return result
        name = self._next_name(self._frames[-1])
        if self._silence is not None and self._silence[0] != name:
            return result
        weights, valid = recomputed(
            query.detach(),
            key.detach(),
            given.get("attn_mask"),
            is_causal=bool(given.get("is_causal", False)),
            scale=given.get("scale"),
        )
        seen = of_samples(weights, self._samples)
        if seen is None:
            self.unread += 1
            return result
        kept = None if valid is None else of_samples(valid.expand_as(weights), self._samples)
        self._listen(Call(name, "recomputed", seen, kept))
        return without_head(result, *self._head(seen))

    def _softmax(self, result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if axis not in (-1, result.dim() - 1) or result.dim() < 3 or not result.numel() or result.is_nested:
            return result
        scores = kwargs.get("input", args[0] if args else result)
        if result.dim() == 3 and result.shape[-1] != result.shape[-2] and not self._attentive():
            # probabilities of classes at each place, unless they are multiplied with values
            self._frames[-1].pending = (result, scores)
            return result
        return self._weighed(result, scores)

    def _product(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pending = self._frames[-1].pending
        if pending is not None and args and args[0] is pending[0]:
            self._frames[-1].pending = None
            args = (self._weighed(*pending), *args[1:])
        return func(*args, **kwargs)

    def _weighed(self, result: Tensor, scores: Tensor) -> Tensor:
        """Weights that were computed by hand, as the pass shall go on with them."""
        seen = of_samples(result.detach(), self._samples)
        if seen is None:
            return result
        name = self._next_name(self._frames[-1])
        if self._silence is not None and self._silence[0] != name:
            return result
        valid = of_samples(valid_of_scores(scores.detach()), self._samples)
        self._listen(Call(name, "softmax", seen, None if valid is None or bool(valid.all()) else valid))
        return without_head(result, *self._head(seen))

    def _head(self, seen: Tensor) -> tuple[int | None, int]:
        """The head to silence in this call, and how many it has."""
        return (None if self._silence is None else self._silence[1]), seen.shape[1]

    def _returned(self, frame: _Frame, parts: Sequence[Any]) -> bool:
        for part in reversed(parts):
            known = attends(frame.module)
            if not isinstance(part, Tensor) or not looks_like_weights(part, self._samples, known=known):
                continue
            seen = of_samples(part.detach(), self._samples)
            if seen is None:
                continue
            sums = seen.sum(-1, keepdim=True)
            scaled = seen / sums.where(sums > SUMS, 1.0)  # dropout may have been applied
            self._listen(Call(self._next_name(frame), "returned", scaled, valid_of_weights(seen)))
            return True
        return False


@contextmanager
def watching(
    model: nn.Module, samples: int, listen: Listener, *, silence: Silenced | None = None
) -> Iterator[Watch]:
    """Tell ``listen`` every attention of one forward pass in the body.

    Args:
        model: in evaluation mode; it gets hooks for the time of the body.
        samples: in the pass.
        listen: called during the pass, in order; the weights are its own.
        silence: set the output of one head of one call to zero (not for ``returned`` weights), and tell that
            call alone.
    """
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and loading it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        watch = Watch(model, samples, listen, silence)
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue

            def starts(module: nn.Module, _: Any, name: str = name) -> None:
                watch.starts(module, name or type(module).__name__)

            def ended(_: nn.Module, __: Any, output: Any) -> None:
                watch.ended(output)

            stack.callback(module.register_forward_pre_hook(starts, prepend=True).remove)
            stack.callback(module.register_forward_hook(ended, always_call=True).remove)
        with watch:
            yield watch
