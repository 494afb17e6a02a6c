from __future__ import annotations

import re

import pytest

from torchwatch import errors

CLASSES = {n: c for n, c in vars(errors).items() if isinstance(c, type)}


def _drawn() -> dict[str, tuple[str, str | None]]:
    """Class, parent and built-in base as the tree in the module's docstring shows them."""
    path: list[str] = []
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)(\w+)(?:\s+\(also an? (\w+)\))?", line)
        if match and match[2] in CLASSES:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            found[match[2]] = (path[depth - 1] if depth else "Exception", match[3])
    return found


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = _drawn()
    assert drawn.keys() == CLASSES.keys()
    for name, (parent, builtin) in drawn.items():
        bases = [b.__name__ for b in CLASSES[name].__bases__]
        assert bases == [parent, builtin] if builtin else bases == [parent]


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_ours_and_documented(name: str) -> None:
    assert issubclass(CLASSES[name], errors.TorchwatchError)
    assert CLASSES[name].__doc__
    assert str(CLASSES[name]("one sentence")) == "one sentence"


def test_the_usual_built_in_errors_catch_them() -> None:
    for error, builtin in [
        (errors.ConfigError, ValueError),
        (errors.ModelError, TypeError),
        (errors.WatcherClosed, RuntimeError),
        (errors.RunBusy, RuntimeError),
        (errors.NotARunFile, ValueError),
        (errors.NewerSchema, ValueError),
        (errors.MissingExtra, ImportError),
    ]:
        with pytest.raises(builtin):
            raise error("x")
