"""Weights from a checkpoint into a model: Lightning, Hugging Face and plain state dicts.

Nothing that a file may hold is executed unless the caller says that it is trusted, and a model is either
loaded whole or left as it was.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchwatch.errors import MissingExtra, UsageError
from torchwatch.examinations._placing import unwrapped

_HOLDERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""Keys under which a checkpoint holds its state dict, the commonest first."""
_WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and ``torch.compile`` put into names."""
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded.

    Attributes:
        path: the file, or the folder of a Hugging Face model.
        form: ``Lightning``, ``safetensors``, ``state dict`` or ``pickled model``.
        key: key that held the weights; empty where the file holds nothing else.
        tensors: how many entries of the model's state dict were loaded.
        prefix: prefix that was taken off the names; empty where there was none.
        left_out: names in the file that belong to something else than the model.
        has_config: whether the checkpoint holds a configuration that is not None.
    """

    path: str
    form: str
    key: str
    tensors: int
    prefix: str
    left_out: tuple[str, ...]
    has_config: bool

    def __str__(self) -> str:
        """One sentence for people."""
        where = f" under {self.key!r}" if self.key else ""
        off = f", without the prefix {self.prefix!r}" if self.prefix else ""
        rest = f"; {len(self.left_out)} other entries were left out" if self.left_out else ""
        return f"{self.tensors} tensors loaded from {self.path} ({self.form}{where}{off}){rest}"


def load_checkpoint(model: nn.Module, path: str | Path, *, trust: bool = False) -> Loaded:
    """Load a checkpoint's weights into a model, all of them or none.

    Args:
        model: wrapped by DataParallel or ``torch.compile`` or not.
        path: a file of ``torch.save``, a ``.safetensors`` file, or the folder of a Hugging Face model.
        trust: unpickle whatever the file holds, which can run any code. False: tensors and plain values only.

    Raises:
        UsageError: the file is missing, cannot be read, needs trust, holds no weights, or does not match the
            model; then the model is as it was.
        MissingExtra: a ``.safetensors`` file without the package ``safetensors``.
    """
    inner = unwrapped(model)
    content, form = _read(Path(path).expanduser(), trust=trust)
    weights, key = _weights(content, path)
    if isinstance(content, Mapping) and any(str(k).startswith("pytorch-lightning") for k in content):
        form = "Lightning"
    elif isinstance(content, nn.Module):
        form = "pickled model"
    config = _config(content)
    named, prefix, left_out = _named_as(weights, inner)
    _check(named, inner, path, has_config=config)
    inner.load_state_dict(named, strict=False)
    return Loaded(str(path), form, key, len(named), prefix, left_out, config)


# ---------------------------------------------------------------------- reading


def _read(path: Path, *, trust: bool) -> tuple[Any, str]:
    if path.is_dir():
        return _read_folder(path, trust=trust)
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}: check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), "safetensors"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what does not load is said below
            return torch.load(path, map_location="cpu", weights_only=not trust), "state dict"
    except pickle.UnpicklingError as error:
        if not trust and _is_pickle(path):
            raise UsageError(
                f"{path} holds more than weights{_what(path)}, and loading that could run any code: if you "
                "trust where it comes from, add --trust-checkpoint"
            ) from error
        raise UsageError(_unreadable(path, error)) from error
    except Exception as error:
        raise UsageError(_unreadable(path, error)) from error


def _is_pickle(path: Path) -> bool:
    """Whether it begins as a file of ``torch.save`` (a zip) or as a pickle (protocol 2 and later)."""
    with path.open("rb") as file:
        head = file.read(2)
    return head in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _what(path: Path) -> str:
    """Which classes the safe reader refused."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (ValueError, RuntimeError, pickle.UnpicklingError, KeyError):  # a plain pickle cannot be asked
        return ""
    return f" ({', '.join(sorted(names)[:_NAMED])})" if names else ""


def _unreadable(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:120]
    return f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason}): is it complete?"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if importlib.util.find_spec("safetensors") is None:
        raise MissingExtra(f"{path} needs the package safetensors: pip install safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(_unreadable(path, error)) from error
    return loaded


def _read_folder(path: Path, *, trust: bool) -> tuple[Any, str]:
    """What ``save_pretrained`` writes: one file, or several and an index of them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return _read(path / name, trust=trust)
        index = path / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            joined: dict[str, Any] = {}
            for part in parts:
                content, form = _read(path / Path(part).name, trust=trust)
                joined.update(content)
            return joined, form
    raise UsageError(f"{path} has neither model.safetensors nor pytorch_model.bin: name the file")


def _weights(content: Any, path: str | Path) -> tuple[dict[str, Any], str]:
    """The state dict in what a file held, and the key it was under."""
    if isinstance(content, nn.Module):
        return dict(unwrapped(content).state_dict()), ""
    if isinstance(content, Mapping):
        if content and all(isinstance(v, Tensor) for v in content.values()):
            return {str(k): v for k, v in content.items()}, ""
        for key in _HOLDERS:
            held = content.get(key)
            if isinstance(held, (nn.Module, Mapping)) and held is not content:
                inner, deeper = _weights(held, path) if _holds_tensors(held) else ({}, "")
                if inner:
                    return inner, f"{key}.{deeper}" if deeper else key
        if _holds_tensors(content):
            return {str(k): v for k, v in content.items()}, ""
        keys = ", ".join(str(k) for k in list(content)[:10])
        raise UsageError(
            f"{path} holds no state dict (its keys: {keys or 'none'}): save `model.state_dict()`"
        )
    raise UsageError(f"{path} holds {type(content).__name__}, not a state dict: save `model.state_dict()`")


def _holds_tensors(held: Any) -> bool:
    if isinstance(held, nn.Module):
        return True
    values = held.values() if isinstance(held, Mapping) else ()
    return any(isinstance(v, Tensor) or (isinstance(v, Mapping) and _holds_tensors(v)) for v in values)


def _config(content: Any) -> bool:
    names = ("config", "hyper_parameters", "args", "cfg")
    return isinstance(content, Mapping) and any(content.get(n) is not None for n in names)


# ---------------------------------------------------------------------- names


def _named_as(weights: dict[str, Any], model: nn.Module) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The weights under the model's names, the prefix that went, and names that are not the model's.

    Tried in turn: the names as they are, without the components of wrappers, without a common prefix. What
    fits most of the model's names is taken, the plainest of equals.
    """
    names = {_without_wrappers(k): k for k in model.state_dict()}
    bare = {_without_wrappers(k): k for k in weights}
    tries = [(weights, "")]
    for prefix in ["", *sorted(_prefixes(bare, set(names)), key=lambda p: (len(p), p))]:
        cut = {b.removeprefix(prefix): k for b, k in bare.items() if b.startswith(prefix)}
        tries.append(({names.get(c, c): weights[k] for c, k in cut.items()}, prefix or _taken_off(weights)))
    wanted = set(names.values())
    named, prefix = max(tries, key=lambda t: len(wanted & set(t[0])))
    if len(named) == len(weights):
        return named, prefix, ()
    return named, prefix, tuple(k for b, k in bare.items() if not b.startswith(prefix))


def _taken_off(weights: dict[str, Any]) -> str:
    """The wrapper in front of the names, for the report."""
    return next((f"{w}." for w in _WRAPPERS for k in weights if w in k.split(".")), "")


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(names: Iterable[str], wanted: set[str]) -> set[str]:
    """Leading components after which a name is one of the model's."""
    found = set()
    for name in names:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                found.add(".".join(parts[:cut]) + ".")
    return found


# ---------------------------------------------------------------------- fit


def _check(named: dict[str, Any], model: nn.Module, path: str | Path, *, has_config: bool) -> None:
    """Raise unless every entry of the model is in the checkpoint, in its shape, and nothing else is.

    Two absences are none: a tensor that the model holds under another name too (tied weights are saved once),
    and a buffer that the model has but does not save.
    """
    own = model.state_dict()
    loaded_places = {own[k].data_ptr() for k in named if k in own and _sized(own[k])}
    missing = [
        k for k, v in own.items() if k not in named and not (_sized(v) and v.data_ptr() in loaded_places)
    ]
    buffers = {k for k, _ in model.named_buffers()}
    unexpected = [k for k in named if k not in own and k not in buffers]
    wrong = [
        f"{k} is {tuple(v.shape)} in the checkpoint and {tuple(own[k].shape)} in the model"
        for k, v in named.items()
        if k in own and isinstance(v, Tensor) and _sized(own[k]) and v.shape != own[k].shape
    ]
    parts = [
        f"{len(names)} {what}: {', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
    if parts:
        hint = "" if has_config else ", which the checkpoint does not hold"
        raise UsageError(
            f"{path} does not match the model ({'; '.join(parts)}): build the model with the configuration "
            f"that it was trained with{hint}"
        )


def _sized(value: Any) -> bool:
    """Whether it is a tensor with memory of its own: no extra state, nothing lazy, not empty."""
    return isinstance(value, Tensor) and not is_lazy(value) and value.numel() > 0
