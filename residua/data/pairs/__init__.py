"""Pictures with masks: folders, names and files -> splits of pictures and classes, 2-D or 3-D.

recognises(folder) -> bool      open_pairs(folder) -> Pairs      check_pairs(pairs) -> PairFindings
"""

from residua.data.pairs.check import PairFindings, check_pairs
from residua.data.pairs.items import Item, PairSplit
from residua.data.pairs.layout import recognises
from residua.data.pairs.sets import Pairs, open_pairs

__all__ = [
    "Item",
    "PairFindings",
    "PairSplit",
    "Pairs",
    "check_pairs",
    "open_pairs",
    "recognises",
]
