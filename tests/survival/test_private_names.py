"""Private names of torch live in one module, and hooks that change training are not used at all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import torchwatch

PACKAGE = Path(torchwatch.__file__).parent
HOME = PACKAGE / "probes" / "_torch.py"
FORBIDDEN = {"register_full_backward_hook", "register_full_backward_pre_hook", "register_backward_hook"}


def dotted(node: ast.expr) -> list[str] | None:
    """``torch.a.b`` as its parts; None for anything that does not begin with a name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return None if start is None else [*start, node.attr]
    return None


def private_names(source: str) -> set[str]:
    """Names that begin with an underscore and are reached from torch, by attribute or by import."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        parts: list[str] = []
        if isinstance(node, ast.Attribute):
            parts = dotted(node) or []
        elif isinstance(node, ast.Import):
            parts = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
        if parts and parts[0] == "torch":
            found |= {".".join(parts) for part in parts if part.startswith("_") and not part.endswith("__")}
    return found


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != HOME]


def test_private_names_of_torch_live_in_one_module() -> None:
    found = {str(p.relative_to(PACKAGE)): private_names(p.read_text()) for p in sources()}
    assert {path: names for path, names in found.items() if names} == {}
    assert private_names(HOME.read_text())


@pytest.mark.parametrize(
    "source",
    ["torch._C.x", "import torch._dynamo", "from torch.optim import _functional", "from torch._ops import x"],
)
def test_what_counts_as_private(source: str) -> None:
    assert private_names(source)
    assert not private_names("import torch.nn\nfrom torch import nn\ntorch.__version__\nself._torch.x")


def test_no_hook_that_changes_training_is_used() -> None:
    """Full backward hooks changed the bits of a third of 215 architectures and raised in a quarter."""
    for path in [*sources(), HOME]:
        names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
        assert not names & FORBIDDEN, path
