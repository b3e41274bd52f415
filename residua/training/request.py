"""What a user asked for, as it is kept in config.yaml."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from residua.data.pictures import NAMED
from residua.errors import BadInput
from residua.training.recipe import Recipe, build


@dataclass(frozen=True)
class Request:
    """What a user asked for."""

    source: str
    recipe: Recipe
    data: str | None = None
    seed: int = 0
    workers: int | None = None
    device: str = "auto"
    weights: str | None = None
    head: Literal["keep", "new"] = "keep"
    skip_unreadable: bool = False
    command: str = ""
    task: str = "classification"

    def as_config(self) -> dict[str, Any]:
        """Return the contents of config.yaml."""
        values = asdict(replace(self, recipe=None))  # type: ignore[arg-type]
        for key in ("source", "data", "weights"):  # a run can go on from another folder
            path = Path(values[key] or "").expanduser()
            if values[key] is not None and not self._is_named(key) and path.exists():
                values[key] = str(path.absolute())
        return values | {"recipe": self.recipe.model_dump(mode="json")}

    def _is_named(self, key: str) -> bool:
        """Return whether this is the name of a set, which a folder of that name here is not."""
        return key == "source" and self.source.lower().replace("-", "_") in NAMED

    @classmethod
    def from_config(cls, values: dict[str, Any], where: str) -> Request:
        """Return the request in a config.yaml; BadInput for an unknown or missing key."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        missing = {"source", "recipe"} - set(values)
        if unknown or missing:
            what = f"unknown key {min(unknown)!r}" if unknown else f"no key {min(missing)!r}"
            raise BadInput(f"{where}: {what}")
        return cls(**{**values, "recipe": build(values["recipe"], where)})

    def changed(self, **changes: Any) -> Request:
        """Return a copy with some fields changed."""
        return replace(self, **changes)
