"""History and checks become alerts, incidents and a health score: the same live and in replay."""

from torchwatch.engine.engine import Engine
from torchwatch.engine.incidents import Incident
from torchwatch.engine.score import COST, band, health_score

__all__ = ["COST", "Engine", "Incident", "band", "health_score"]
