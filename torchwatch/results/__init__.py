"""What an autopsy yields: frozen dataclasses, without torch, so that reports can be read and made anywhere.

Each examination has its result in a file of its own here. All arrays are numpy's. Whatever was not measured
is NaN or None, never 0.
"""

from torchwatch.results.autopsy import About, Autopsy, Outcome, Remark
from torchwatch.results.inputs import AutopsyInputs
from torchwatch.results.plain import plain

__all__ = ["About", "Autopsy", "AutopsyInputs", "Outcome", "Remark", "plain"]
