"""The matrix names tests that exist, and every test of this folder is in it."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.survival.matrix import MATRIX
from tests.zoo import CASES

ROOT = Path(__file__).resolve().parent.parent.parent
NODES = sorted({node for rows in MATRIX.values() for nodes in rows.values() for node in nodes})


@functools.cache
def functions(file: str) -> set[str]:
    """The tests that a file defines."""
    tree = ast.parse((ROOT / file).read_text())
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def test_every_row_names_tests_that_exist() -> None:
    for section, rows in MATRIX.items():
        for row, nodes in rows.items():
            assert nodes, (section, row)
            for node in nodes:
                file, _, test = node.partition("::")
                assert test.partition("[")[0] in functions(file), (section, row, node)


def test_every_training_of_the_zoo_that_is_named_exists() -> None:
    for node in NODES:
        if node.startswith("tests/test_bitwise.py::test_training_is_the_same_when_watched["):
            assert node.partition("[")[2].removesuffix("-everything]") in CASES, node


def test_every_test_of_this_folder_is_in_the_matrix() -> None:
    named = {node.partition("[")[0] for node in NODES}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            file = str(path.relative_to(ROOT))
            assert {f"{file}::{test}" for test in functions(file)} <= named


@pytest.mark.slow
def test_every_test_that_is_named_is_collected() -> None:
    """With its parameters, as pytest itself sees it."""
    files = sorted({node.partition("::")[0] for node in NODES})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    collected = set(done.stdout.splitlines())
    collected |= {line.partition("[")[0] for line in collected}
    assert [node for node in NODES if node not in collected] == []
