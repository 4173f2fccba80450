"""The functions of the library, for models and samples that Python code has."""

from defense.api.attacking import attack, evaluate
from defense.api.defending import Defended, defend
from defense.api.scoring import score
from defense.api.treating import treat

__all__ = ["Defended", "attack", "defend", "evaluate", "score", "treat"]
