"""torchvision's and timm's networks as closed forms of their tensors' names and as plain functions.

They share nothing with the code under test: not its blocks, not its tables of names.
"""

from . import byob, densenet, layers, numbered, resnet, resnetv2

__all__ = ["byob", "densenet", "layers", "numbered", "resnet", "resnetv2"]
