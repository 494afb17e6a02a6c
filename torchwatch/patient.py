"""The watched model, seen from outside: its layers and parameters by identity, held weakly.

Nothing is stored on the model; everything here is dropped when the model is gone.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from torchwatch.records import LayerInfo, OptimizerInfo, ParameterInfo

_WRAPPERS = ("module", "_orig_mod")
_PLAIN = (bool, int, float, str)
_OF_PARENTS = (
    "num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "nheads", "heads", "num_attn_heads",
    "head_dim", "attention_head_size", "head_size", "d_head", "dim_head", "qk_head_dim", "key_value_proj_dim",
    "norm_first", "pre_norm", "normalize_before",
)  # fmt: skip
"""Attributes of modules around layers that describe the layers: how attention is split, where norms stand."""


@dataclass(slots=True)
class Layer:
    """A leaf module, or one that owns parameters; ``order`` and shapes come from the first forward pass.

    ``parent`` is the module that holds it, None for the model itself.
    """

    name: str
    module: weakref.ref[nn.Module]
    type: str
    parent: weakref.ref[nn.Module] | None = None
    parameters: list[int] = field(default_factory=list)
    order: int | None = None
    inputs: list[list[int]] = field(default_factory=list)
    outputs: list[list[int]] = field(default_factory=list)
    feeds_units: bool = False


@dataclass(slots=True)
class Optimizer:
    """An optimizer that stepped; ``held`` are the indices of its watched parameters."""

    reference: weakref.ref[torch.optim.Optimizer]
    type: str
    held: list[int]
    sizes: tuple[int, ...]


class Patient:
    """Layers, parameters and optimizers of a model, by identity.

    ``version`` counts changes of modules, parameters or optimizers: columns of an older version do not fit a
    newer one. ``structure`` counts those of modules and parameters alone.
    """

    def __init__(self, model: nn.Module) -> None:
        me = weakref.ref(self)  # a callback that held the patient would keep it alive with itself
        self.model = weakref.ref(model, lambda _: _forget(me()))
        self.layers: list[Layer] = []
        self.names: list[str] = []
        self.parameters: list[weakref.ref[nn.Parameter]] = []
        self.owners: list[int] = []
        self.layer_index: dict[int, int] = {}
        self.parameter_index: dict[int, int] = {}
        self.optimizers: list[Optimizer] = []
        self._entries: dict[int, Optimizer] = {}
        self._unowned: tuple[int, list[int]] = (-1, [])
        self.version = self.structure = 0
        self._signature: tuple[int, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Walk the model again; True when modules or parameters came, went or were replaced."""
        model = self.model()
        if model is None:
            return False
        found = list(model.named_modules())
        signature = tuple(id(o) for _, m in found for o in (m, *m._parameters.values()))
        if signature == self._signature:
            return False
        self._signature = signature
        self._walk(found)
        self.version += 1
        self.structure += 1
        for optimizer in self.optimizers:
            optimizer.sizes = ()
        return True

    def _walk(self, found: list[tuple[str, nn.Module]]) -> None:
        known = {layer.name: layer for layer in self.layers}
        self.layers, self.names, self.parameters, self.owners = [], [], [], []
        self.layer_index, self.parameter_index = {}, {}
        modules = dict(found)
        for raw_name, module in found:
            own = {k: p for k, p in module._parameters.items() if p is not None}
            if own or not module._modules:
                self._add_layer(clean_name(raw_name), module, own, known)
                if raw_name:
                    self.layers[-1].parent = weakref.ref(modules[raw_name.rpartition(".")[0]])

    def _add_layer(
        self, name: str, module: nn.Module, own: dict[str, nn.Parameter], known: dict[str, Layer]
    ) -> None:
        index = len(self.layers)
        layer = Layer(name, weakref.ref(module), type(module).__name__)
        before = known.get(name)
        if before is not None and before.module() is module:
            layer.order, layer.inputs, layer.outputs = before.order, before.inputs, before.outputs
        layer.feeds_units = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
        self.layer_index[id(module)] = index
        self.layers.append(layer)
        for key, parameter in own.items():
            if id(parameter) in self.parameter_index:  # tied: counted where it comes first
                layer.parameters.append(self.parameter_index[id(parameter)])
                continue
            place = len(self.parameters)
            self.parameter_index[id(parameter)] = place
            self.parameters.append(weakref.ref(parameter))
            self.names.append(f"{name}.{key}" if name else key)
            self.owners.append(index)
            layer.parameters.append(place)

    def layer_of(self, module: nn.Module) -> int | None:
        """Index of a watched module; None for any other, also one that reuses the memory of a dead one."""
        index = self.layer_index.get(id(module))
        return index if index is not None and self.layers[index].module() is module else None

    def place_of(self, parameter: nn.Parameter) -> int | None:
        """Index of a watched parameter; None for any other, also one at the address of a dead one."""
        place = self.parameter_index.get(id(parameter))
        return place if place is not None and self.parameters[place]() is parameter else None

    def live_parameters(self) -> Iterator[tuple[int, nn.Parameter]]:
        """Indices and parameters that still exist."""
        for index, reference in enumerate(self.parameters):
            parameter = reference()
            if parameter is not None:
                yield index, parameter

    def held_by(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """Indices of the watched parameters that an optimizer holds, remembered until its groups change."""
        entry = self._entries.get(id(optimizer))
        if entry is not None and entry.reference() is not optimizer:
            entry = None
        sizes = tuple(len(g["params"]) for g in optimizer.param_groups)
        if entry is not None and entry.sizes == sizes:
            return entry.held
        found = (self.place_of(p) for g in optimizer.param_groups for p in g["params"])
        held = [place for place in found if place is not None]
        if entry is None and not held:
            return held
        if entry is None:
            entry = Optimizer(weakref.ref(optimizer), type(optimizer).__name__, held, sizes)
            self.optimizers = [o for o in self.optimizers if o.reference() is not None]
            self.optimizers.append(entry)
            self._entries = {id(o.reference()): o for o in self.optimizers}
        entry.held, entry.sizes = held, sizes
        self.version += 1
        return held

    def unowned(self) -> list[int]:
        """Indices of parameters in no optimizer seen so far."""
        version, indices = self._unowned
        if version != self.version:
            owned = {i for o in self.optimizers for i in o.held}
            indices = [i for i in range(len(self.parameters)) if i not in owned]
            self._unowned = (self.version, indices)
        return indices

    def layer_infos(self) -> list[LayerInfo]:
        """The layers for the layout record."""
        infos = []
        for layer in self.layers:
            module = layer.module()
            own = [] if module is None else [p for p in module._parameters.values() if p is not None]
            infos.append(
                LayerInfo(
                    name=layer.name,
                    type=layer.type,
                    parameters=sum(_numel(p) for p in own),
                    trainable=any(p.requires_grad for p in own) if own else True,
                    order=layer.order,
                    inputs=layer.inputs,
                    outputs=layer.outputs,
                    attributes=_attributes(module) | _of_parent(layer),
                    watched=not isinstance(module, torch.jit.ScriptModule),
                )
            )
        return infos

    def scripted(self) -> int:
        """How many layers run inside TorchScript, where no hook fires."""
        return sum(isinstance(layer.module(), torch.jit.ScriptModule) for layer in self.layers)

    def parameter_infos(self) -> list[ParameterInfo]:
        """The parameters for the layout record, with the optimizer and group that hold them."""
        places = self._places()
        infos = []
        for index, reference in enumerate(self.parameters):
            parameter = reference()
            optimizer, group = places.get(index, (None, None))
            lazy = parameter is None or isinstance(parameter, nn.parameter.UninitializedParameter)
            infos.append(
                ParameterInfo(
                    name=self.names[index],
                    layer=self.owners[index],
                    shape=[] if lazy or parameter is None else list(parameter.shape),
                    dtype="" if parameter is None else str(parameter.dtype).removeprefix("torch."),
                    trainable=parameter is not None and parameter.requires_grad,
                    optimizer=optimizer,
                    group=group,
                )
            )
        return infos

    def _places(self) -> dict[int, tuple[int, int]]:
        places = {}
        for number, entry in enumerate(self.optimizers):
            optimizer = entry.reference()
            for group, options in enumerate(optimizer.param_groups if optimizer is not None else ()):
                for parameter in options["params"]:
                    index = self.place_of(parameter)
                    if index is not None:
                        places[index] = (number, group)
        return places

    def optimizer_infos(self) -> list[OptimizerInfo]:
        """The optimizers for the layout record; of each group its plain options."""
        infos = []
        for entry in self.optimizers:
            optimizer = entry.reference()
            groups = [] if optimizer is None else optimizer.param_groups
            infos.append(
                OptimizerInfo(
                    type=entry.type,
                    groups=[
                        {k: v for k, v in g.items() if isinstance(v, _PLAIN)}
                        | {"parameters": len(g["params"])}
                        for g in groups
                    ],
                )
            )
        return infos


def _forget(patient: Patient | None) -> None:
    """The model is gone."""
    if patient is not None:
        patient.layer_index.clear()
        patient.parameter_index.clear()


def clean_name(name: str) -> str:
    """The name without the wrappers' ``module.`` and ``_orig_mod.``."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _numel(parameter: nn.Parameter) -> int:
    return 0 if isinstance(parameter, nn.parameter.UninitializedParameter) else parameter.numel()


def _attributes(module: nn.Module | None) -> dict[str, object]:
    """Plain numbers and words of the module, such as ``in_features``."""
    if module is None:
        return {}
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in vars(module).items()
        if not k.startswith("_")
        and k not in ("training", "parent")
        and (isinstance(v, _PLAIN) or (isinstance(v, tuple) and all(isinstance(x, _PLAIN) for x in v)))
    }


def _of_parent(layer: Layer) -> dict[str, object]:
    """``parent``: class, heads and norm placement of the module around a layer, where it has such."""
    module = None if layer.parent is None else layer.parent()
    if module is None:
        return {}
    kind, own = type(module).__name__, vars(module)
    said = {k: own[k] for k in _OF_PARENTS if isinstance(own.get(k), _PLAIN)}
    return {"parent": {"type": kind} | said} if said or "Attention" in kind else {}
