"""Where a model attends, and how its width is split into heads, as far as the layout says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchwatch.records import LayerInfo, Layout

_BEFORE = r"(?:(?:to|w|fc|lin|linear|projection|convolution_projection)_?)?"
_AFTER = r"(?:_?(?:proj|projection|lin|linear|layer|conv|head|b_proj))?"
_QUERY = re.compile(f"{_BEFORE}(?:q|qs|query|queries){_AFTER}", re.IGNORECASE)
_KEY = re.compile(f"{_BEFORE}(?:k|ks|key|keys|kv){_AFTER}", re.IGNORECASE)
_FUSED = re.compile(r".*qkv.*|qk|c_attn|query_key_value|in_proj_weight", re.IGNORECASE)
_HEADS = (
    "num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "nheads", "heads", "num_attn_heads",
)  # fmt: skip
_HEAD_SIZES = (
    "head_dim", "attention_head_size", "head_size", "d_head", "dim_head", "qk_head_dim", "key_value_proj_dim",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention module.

    Attributes:
        name: its dotted path.
        layer: the layer that stands for it: its query projection, or itself.
        order: place of its first projection in call order, None where it was not seen.
        heads: how many heads it has, where it says so.
        head_size: what it says one head's width is.
        width: what the heads share: the width of the queries.
    """

    name: str
    layer: str
    order: int | None
    heads: int | None
    head_size: int | None
    width: int | None


def attentions(layout: Layout) -> list[Attention]:
    """Every module with queries and keys among its layers or parameters, in the order of the layout.

    What projects to queries and keys is told by its name, of which there are few in use; a module that calls
    itself an attention and counts its heads is one too, whatever its projections are called.
    """
    layers = {x.name: x for x in layout.layers}
    projections: dict[str, dict[str, list[LayerInfo]]] = {}
    for layer in layout.layers:
        for path, leaf in _places(layer):
            projections.setdefault(path, {}).setdefault(leaf, []).append(layer)
    for parameter in layout.parameters:
        path, _, leaf = parameter.name.rpartition(".")
        if _role(leaf) is not _Role.NONE:
            projections.setdefault(path, {}).setdefault(leaf, [])
    return [
        _attention(path, leaves, layers.get(path)) for path, leaves in projections.items() if _attends(leaves)
    ]


def around(layer: LayerInfo) -> dict[str, Any]:
    """What the module around a layer says of it, as :mod:`torchwatch.patient` noted it."""
    parent = layer.attributes.get("parent")
    return dict(parent) if isinstance(parent, dict) else {}


def _places(layer: LayerInfo) -> list[tuple[str, str]]:
    """Under which modules this layer projects, and as what; "" stands for an attention's other layers."""
    names = layer.name.split(".")
    found = [(".".join(names[:i]), name) for i, name in enumerate(names) if _role(name) is not _Role.NONE]
    parent = around(layer)
    counts_heads = "ttention" in str(parent.get("type")) and _first(parent, _HEADS) is not None
    if layer.type == "MultiheadAttention":
        found.append((layer.name, ""))
    elif not found and counts_heads:
        found.append((".".join(names[:-1]), ""))
    return found


class _Role(IntEnum):
    """What a module projects to, by its name; the first one stands for its attention."""

    QUERY = 0
    FUSED = 1
    KEY = 2
    NONE = 3


_ROLES = ((_QUERY, _Role.QUERY), (_FUSED, _Role.FUSED), (_KEY, _Role.KEY))


@lru_cache(maxsize=4096)  # a model has few different names, and a pattern costs more than all else here
def _role(name: str) -> _Role:
    return next((role for pattern, role in _ROLES if pattern.fullmatch(name)), _Role.NONE)


def _attends(leaves: dict[str, list[LayerInfo]]) -> bool:
    roles = {_role(leaf) for leaf in leaves}
    return _Role.FUSED in roles or roles >= {_Role.QUERY, _Role.KEY} or "" in leaves


def _attention(path: str, leaves: dict[str, list[LayerInfo]], own: LayerInfo | None) -> Attention:
    query = min(leaves, key=_role)
    projection = next((x for x in leaves[query] if x.attributes), None)
    said: dict[str, Any] = {}
    for layer in [x for layers in leaves.values() for x in layers]:
        if layer.name.rpartition(".")[0] == path:
            said |= around(layer)
    said |= {} if own is None else own.attributes
    orders = [x.order for n, layers in leaves.items() if n for x in layers if x.order is not None]
    return Attention(
        name=path,
        layer=path if projection is None or own is not None else projection.name,
        order=min(orders, default=None if own is None else own.order),
        heads=_first(said, _HEADS),
        head_size=_first(said, _HEAD_SIZES),
        width=_first(said, ("embed_dim",)) if projection in (None, own) else _width(query, projection),
    )


def _first(given: dict[str, Any], names: tuple[str, ...]) -> int | None:
    found = (given.get(name) for name in names)
    return next((v for v in found if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)


def _width(query: str, projection: LayerInfo | None) -> int | None:
    """Width of the queries; of a fused projection only where queries, keys and values are equally wide."""
    if projection is None:
        return None
    out = _first(projection.attributes, ("out_features", "nf"))
    if out is None or _role(query) is _Role.QUERY:
        return out
    source = projection.inputs[0][-1] if projection.inputs else projection.attributes.get("in_features")
    return out // 3 if isinstance(source, int) and out == 3 * source else None
