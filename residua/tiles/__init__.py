"""Prediction on pictures of any size, in tiles: exact where the network allows it, blended elsewhere."""

from residua.tiles.geometry import Geometry, geometry_of
from residua.tiles.plan import Plan
from residua.tiles.predict import plan_for, predict
from residua.tiles.result import CannotWrite

__all__ = ["CannotWrite", "Geometry", "Plan", "geometry_of", "plan_for", "predict"]
