"""BlockDrop: a policy that picks, per picture, which residual blocks to run (Wu et al. 2018)."""

from residua.models.policy import BlockDrop, policy_network
from residua.models.skipping import SkippingNetwork
from residua.training.blockdrop.pair import load_pair, save_pair
from residua.training.blockdrop.train import BlockDropSettings, train_policy

__all__ = [
    "BlockDrop",
    "BlockDropSettings",
    "SkippingNetwork",
    "load_pair",
    "policy_network",
    "save_pair",
    "train_policy",
]
