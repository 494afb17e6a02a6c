"""A whole run, judged: the records once more through the engine, in bounded memory."""

from torchwatch.diagnosis.judge import diagnose
from torchwatch.diagnosis.result import Diagnosis, LayerHighlight
from torchwatch.diagnosis.sustainability import Sustainability

__all__ = ["Diagnosis", "LayerHighlight", "Sustainability", "diagnose"]
