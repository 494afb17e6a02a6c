"""What lets ``transformers`` and ``timm`` be imported where there is no torchvision, and no network.

``timm`` imports torchvision when it is itself imported (image transforms, datasets, one normalisation
layer), though none of its models needs it; a torchvision that fits a CPU build of torch is on no package
registry. So a stand-in lies in ``sys.modules`` while timm is imported and is gone afterwards: nothing else
ever sees it, ``transformers`` in particular finds no torchvision and leaves its image processors out. What
the stand-in gives are names only; whoever calls one is told what it is.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = {
    "torchvision": (),
    "torchvision.transforms": ("ToTensor",),
    "torchvision.transforms.functional": ("InterpolationMode",),
    "torchvision.datasets": ("CIFAR100", "CIFAR10", "MNIST", "KMNIST", "FashionMNIST", "ImageFolder"),
    "torchvision.ops": (),
    "torchvision.ops.misc": ("FrozenBatchNorm2d",),
}
"""Every module of torchvision that timm imports without a fallback of its own, and the names in it that must
be classes when timm's modules are executed."""


def _refuse(self: object, *args: Any, **options: Any) -> None:
    raise NotImplementedError(f"{type(self).__qualname__} is only a stand-in: torchvision is not installed")


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name, __doc__)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    for word in NAMES[name]:
        made = type(word, (), {"__init__": _refuse, "__module__": name})
        if word == "InterpolationMode":
            made = _modes()
        setattr(module, word, made)
    return module


def _modes() -> type:
    """timm makes a table of these names when it is imported."""
    names = ("NEAREST", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")
    return type("InterpolationMode", (), {name: name.lower() for name in names})


@contextmanager
def torchvision_stand_in() -> Iterator[None]:
    """Names of torchvision are importable inside; a torchvision that is really there is left alone."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    made = {name: _module(name) for name in NAMES}
    for name, module in made.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(made[parent], child, module)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def load() -> tuple[types.ModuleType, types.ModuleType]:
    """``transformers`` and ``timm``, offline and silent; skips the test where they are not installed.

    Call it before a training is seeded: an import may draw from a random generator. timm comes first, because
    modules of transformers import it too.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with torchvision_stand_in():
        timm = pytest.importorskip("timm", reason="installed by `make test`, without its dependencies")
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers, timm
