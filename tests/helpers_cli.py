"""Running the command line inside a test, on a pipe or on a pretended terminal."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest

from torchwatch.__main__ import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def call(
    monkeypatch: pytest.MonkeyPatch, *arguments: object, terminal: bool = False, width: int = 80
) -> Result:
    """Exit code and both streams of one call."""
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    with monkeypatch.context() as patch:
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", str(width))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = main([str(a) for a in arguments])
    return Result(code, out.getvalue(), err.getvalue())
