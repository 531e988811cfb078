"""Sensitivities: what each option of each group of layers does to the network's predictions, one group at a time."""

from dse.sensitivity.groups import Group
from dse.sensitivity.score import METHODS, score

__all__ = ["METHODS", "Group", "score"]
