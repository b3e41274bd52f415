"""Second moments at initialisation, predicted; the rules of each kind of layer are in a file of its own."""

# Rules register themselves.
from residua.nn.init.moments import activations, containers, gains, norms, weights  # noqa: F401
from residua.nn.init.moments.merges import merge_rule
from residua.nn.init.moments.pooling import global_average
from residua.nn.init.moments.walk import Moments, Walk, rule, second_moments

__all__ = ["Moments", "Walk", "global_average", "merge_rule", "rule", "second_moments"]
