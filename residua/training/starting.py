"""The weights that a training begins with, where it is given some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from torch import nn

from residua.errors import BadInput
from residua.models.starting import start_from
from residua.models.weights import LoadReport, load_weights
from residua.training.cards import Card, ModelCard, card_of


def start_with(
    model: nn.Module, card: Card, path: Path, head: Literal["keep", "new"]
) -> LoadReport:
    """Copy a checkpoint into the network of a card; BadInput, in one line, where it does not fit."""
    if isinstance(card, ModelCard):
        return load_weights(model, path, head=head)
    try:
        return start_from(model, card.name, path, head=head)
    except BadInput as error:
        theirs = card_in(path)
        if theirs is None or theirs.task == ModelCard.task:
            raise  # the line names the network already
        if (theirs.name, theirs.options) == (card.name, card.options):
            raise
        raise BadInput(
            f"{path} is of a run for {theirs.task} with {_named(theirs)}, and this one is for"
            f" {card.task} with {_named(card)}: expected a file of the same network"
        ) from error


def _named(card: Card) -> str:
    options = ", ".join(f"{key}={value}" for key, value in card.options.items())
    return f"{card.name} ({options})" if options else card.name


def card_in(path: Path) -> Card | None:
    """Return the card in a run's file of weights; None for any other file."""
    try:
        with safe_open(path, "pt") as file:
            return card_of(json.loads((file.metadata() or {})["card"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
