"""The mathematics of proposals: tables of additive losses and costs, exact fronts, refits and exchanges.

Nothing here knows of networks: a group is a name with options, a selection is one option's index for each group.
"""

from dse.proposals.table import ChoiceTable, Selection

__all__ = ["ChoiceTable", "Selection"]
