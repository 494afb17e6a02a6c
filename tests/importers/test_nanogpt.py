import math
from pathlib import Path

import pytest

from tests.importers.reading import evals, losses, of_kind, opened
from torchwatch.errors import ConfigError
from torchwatch.importers import open_run
from torchwatch.records import Step


def test_three_streams(tmp_path: Path) -> None:
    lines = ["0 val 10.9", "0 hella 0.25", "0 train 10.89"]
    lines += [f"{i} train {10 * math.exp(-i / 30):.6f}" for i in range(1, 50)] + ["50 val 2.0", "half a line"]
    reader, records = opened(tmp_path / "log.txt", "\n".join(lines))
    assert reader.format == "nanoGPT log"
    assert losses(records)[0] == 10.89
    assert evals(records, "val_loss") == {0: 10.9, 50: 2.0}
    assert evals(records, "val_hella") == {0: 0.25}
    assert reader.torn_lines == 1


def test_llm_c(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "main.log", "s:0 tel:10.9\ns:1 trl:10.5 lr:0.001 norm:2.5\ns:1 eval:0.3\n")
    step = of_kind(records, Step)[0]
    assert (step.loss, step.lr, step.grad_norm_preclip) == (10.5, [0.001], 2.5)
    assert evals(records, "val_loss") == {0: 10.9}


def test_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("0 train 10.9\n")
    with pytest.raises(ConfigError, match="no columns"):
        open_run(path, {"loss": "train"})
