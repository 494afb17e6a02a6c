"""``FILE.py:FUNCTION``: the model and data of an autopsy, from a function of the user's."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from torchwatch.errors import UsageError
from torchwatch.examinations.checkpoints import Loaded, load_checkpoint
from torchwatch.results import AutopsyInputs

__all__ = ["Loaded", "build", "load_checkpoint"]

_FIELDS = tuple(f.name for f in dataclasses.fields(AutopsyInputs))
_WANTED = "it must return AutopsyInputs, a dict of its fields, or a tuple (model, data)"


def build(spec: str) -> AutopsyInputs:
    """Import a file, call one of its functions, and take what it returns as the inputs of an autopsy.

    The file runs under a module name of its own (so ``if __name__ == "__main__"`` parts do not), its folder
    is the first place where it finds imports, and ``sys.argv`` holds the file alone, so that a script that
    parses arguments gets its defaults.

    Args:
        spec: ``FILE.py:FUNCTION``, such as ``train.py:build``.

    Raises:
        UsageError: no colon, no such file or function, a file that does not compile, a function that needs
            arguments, raises, or returns something else.
    """
    path, name = _parts(spec)
    with _as_script(path):
        module = _imported(path)
        function = _function(module, name, path)
        returned = _run(function, path, f"{name}() of {path}")
    return _checked(returned, f"{name}() of {path}")


def _parts(spec: str) -> tuple[Path, str]:
    file, colon, name = spec.rpartition(":")
    if not colon or not file or not name.isidentifier():
        raise UsageError(f"{spec!r} names no function: write FILE.py:FUNCTION, such as train.py:build")
    path = Path(file).expanduser()
    if path.is_file():
        return path, name
    near = _near(path.name, [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else [])
    raise UsageError(f"there is no file {file}{near}: write FILE.py:FUNCTION, such as train.py:build")


def _near(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@contextmanager
def _as_script(path: Path) -> Iterator[None]:
    """The folder of the file on ``sys.path`` and nothing but the file in ``sys.argv``."""
    folder, arguments = str(path.resolve().parent), sys.argv
    sys.path.insert(0, folder)
    sys.argv = [str(path)]
    try:
        yield
    finally:
        sys.argv = arguments
        if folder in sys.path:
            sys.path.remove(folder)


def _imported(path: Path) -> ModuleType:
    """The file as a module; it stays in ``sys.modules``, where pickles of its classes look for it."""
    name = f"_torchwatch_build_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file: write FILE.py:FUNCTION, such as train.py:build")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        _run(lambda: spec.loader.exec_module(module), path, f"importing {path}")  # type: ignore[union-attr]
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _run(work: Callable[[], Any], path: Path, what: str) -> Any:
    """Do what is the user's; whatever it raises becomes one sentence with the place."""
    try:
        return work()
    except SyntaxError as error:
        place = f"line {error.lineno} of {error.filename or path}"
        raise UsageError(f"{what} failed: {place} is no valid Python ({error.msg}): correct it") from error
    except SystemExit as error:
        raise UsageError(
            f"{what} ended the program (exit code {error.code}): what is not for building belongs under "
            '`if __name__ == "__main__":`'
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{what} raised {type(error).__name__}{f': {reason}' if reason else ''} ({_place(error, path)})"
        ) from error


def _place(error: Exception, path: Path) -> str:
    """The line of the user's own folder that is nearest to where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = path.resolve().parent
    own = [f for f in frames if "site-packages" not in f.filename and folder in Path(f.filename).parents]
    frame = (own or frames)[-1]
    return f"line {frame.lineno} of {Path(frame.filename).name}"


def _function(module: ModuleType, name: str, path: Path) -> Callable[[], Any]:
    function = getattr(module, name, None)
    own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
    if function is None:
        defined = [n for n in own if getattr(vars(module)[n], "__module__", "") == module.__name__]
        there = f"; it defines {', '.join(sorted(defined)[:10])}" if defined else ""
        raise UsageError(f"{path} has no function {name!r}{_near(name, own) or there}")
    if not callable(function):
        raise UsageError(f"{name!r} of {path} is {type(function).__name__}, not a function: {_WANTED}")
    needed = _needed(function)
    if needed:
        raise UsageError(
            f"{name}() of {path} is called without arguments but needs {', '.join(needed)}: give defaults"
        )
    return function  # type: ignore[no-any-return]


def _needed(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have none
        return []
    return [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _checked(returned: Any, what: str) -> AutopsyInputs:
    if isinstance(returned, AutopsyInputs):
        inputs = returned
    elif isinstance(returned, Mapping):
        inputs = _of_dict(returned, what)
    elif isinstance(returned, tuple) and len(returned) == 2:
        inputs = AutopsyInputs(*returned)
    else:
        kind = type(returned).__name__
        count = f" of {len(returned)}" if isinstance(returned, (tuple, list)) else ""
        raise UsageError(f"{what} returned {kind}{count}: {_WANTED}")
    if not isinstance(inputs.model, nn.Module):
        is_class = isinstance(inputs.model, type) and issubclass(inputs.model, nn.Module)
        kind = f"the class {inputs.model.__name__}" if is_class else type(inputs.model).__name__
        raise UsageError(f"{what} returned {kind} as the model: it must be a torch.nn.Module")
    if inputs.data is None:
        raise UsageError(f"{what} returned None as the data: return a loader, a Dataset or (inputs, targets)")
    return inputs


def _of_dict(returned: Mapping[Any, Any], what: str) -> AutopsyInputs:
    for key in returned:
        if key not in _FIELDS:
            raise UsageError(
                f"{what} returned a dict with the key {key!r}{_near(str(key), list(_FIELDS))}: {_WANTED}"
            )
    for key in ("model", "data"):
        if key not in returned:
            raise UsageError(f"{what} returned a dict without {key!r}: {_WANTED}")
    return AutopsyInputs(**{str(k): v for k, v in returned.items()})
