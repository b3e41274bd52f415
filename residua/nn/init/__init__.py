"""Initial weights, a scheme a file, and the second moments that they lead to."""

from residua.nn.init.fixup import fixup
from residua.nn.init.lsuv import lsuv
from residua.nn.init.moments import second_moments
from residua.nn.init.scheme import SCHEMES, Fan, initialise
from residua.nn.init.zero_last import zero_last

__all__ = ["SCHEMES", "Fan", "fixup", "initialise", "lsuv", "second_moments", "zero_last"]
