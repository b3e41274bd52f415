"""The operations of a network's forward pass, recorded once and reached again in later passes."""

from residua.xray.trace.graph import Graph, Node
from residua.xray.trace.record import record
from residua.xray.trace.replay import Reach, interpose

__all__ = ["Graph", "Node", "Reach", "interpose", "record"]
