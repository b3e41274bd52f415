"""A backbone and its policy as one safetensors file, with the card that says how to build and feed them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from residua.errors import BadInput
from residua.models.policy import BlockDrop, policy_network
from residua.models.skipping import SkippingNetwork
from residua.training.cards import ModelCard
from residua.training.checkpoint import read_tensors, write_tensors

FORMAT = "residua-blockdrop-1"


def save_pair(path: Path, pair: BlockDrop, card: ModelCard, facts: dict[str, Any]) -> None:
    """Write weights and card; `facts` (accuracy, versions) go with them."""
    metadata = {
        "format": FORMAT,
        "card": json.dumps(card.as_dict()),
        "policy": json.dumps({"shrink": pair.policy.shrink, "large": pair.policy.large}),
        "facts": json.dumps(facts),
    }
    write_tensors(path, pair.state_dict(), metadata)


def load_pair(path: Path) -> tuple[BlockDrop, ModelCard, dict[str, Any]]:
    """Return the pair (evaluation mode, CPU), its card and its facts; BadInput if it is not one."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise BadInput(f"{path}: not a backbone with its policy ({FORMAT})")
    try:
        card = ModelCard.from_dict(json.loads(metadata["card"]))
        facts: dict[str, Any] = json.loads(metadata["facts"])
        backbone = SkippingNetwork(card.build())
        how = json.loads(metadata["policy"])
        policy = policy_network(backbone.blocks, card.shape.channels, **how)
        pair = BlockDrop(backbone, policy)
        pair.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path}: damaged ({' '.join(str(error).split())})") from None
    return pair.eval(), card, facts
