"""Loss landscapes: the loss over lines and planes in the space of weights, with error bars.

landscape = residua.xray.landscape.landscape(model, inputs, targets, points=51)
landscape.save("folder")  # arrays, VTK, a contour figure, an interactive page
"""

from residua.xray.landscape.directions import principal, random_direction, towards
from residua.xray.landscape.explore import landscape
from residua.xray.landscape.landscape import Landscape

__all__ = ["Landscape", "landscape", "principal", "random_direction", "towards"]
