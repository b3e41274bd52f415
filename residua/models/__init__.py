"""The networks, one file a family; `create_model` builds any of them by name."""

from residua.models.registry import Record, create_model, list_models, record, records

__all__ = ["Record", "create_model", "list_models", "record", "records"]
