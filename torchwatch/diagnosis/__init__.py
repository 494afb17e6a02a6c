"""A whole run, judged: the records once more through the engine, in bounded memory."""

from torchwatch.diagnosis.judge import diagnose
from torchwatch.diagnosis.result import Diagnosis, LayerHighlight

__all__ = ["Diagnosis", "LayerHighlight", "diagnose"]
