"""Pieces that every report page shares: rendering, safe data in scripts, pictures, atomic writing.

A page is one file with no network: style, plotly.js and data are inside it. Three fences keep a
hostile class or file name inert: jinja2 autoescape, `script_json` for data, and a content security
policy that only lets the two scripts run whose hashes this module computed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from residua.errors import ResiduaError
from residua.report import numbers
from residua.report.words import DEFINITIONS

TEMPLATES = Path(__file__).parent / "templates"
LARGEST_PICTURE = 256  # pixels of the longer side that a page embeds
UNSAFE_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def plain(value: Any) -> Any:
    """Turn numpy values, paths and non-finite numbers into what JSON and YAML can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def script_json(value: Any) -> Markup:
    """Write JSON that is safe inside a <script> element, whatever strings it holds.

    >>> print(script_json({"name": "</script>", "loss": float("nan")}))
    {"name":"\\u003c/script\\u003e","loss":null}
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(UNSAFE_IN_SCRIPT))


def picture_uri(picture: np.ndarray) -> str:
    """Write a uint8 picture (H, W) or (H, W, C), C in {1, 3, 4}, as a PNG data URI.

    A picture longer than `LARGEST_PICTURE` is reduced; a small one is kept as it is and enlarged
    by the page, so that its pixels stay what they are.
    """
    array = np.ascontiguousarray(picture)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    image = Image.fromarray(array)
    image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def web_link(text: object) -> str:
    """Return `text` if it is a web address, else an empty string: nothing else becomes a link."""
    address = str(text).strip()
    return address if address.startswith(("https://", "http://")) else ""


@cache
def plotly_script() -> Markup:
    """Return plotly.js from the installed plotly package."""
    from plotly.offline import get_plotlyjs

    return _script(str(get_plotlyjs()))


@cache
def page_script(name: str = "page.js") -> Markup:
    """Return a script of ours."""
    return _script((TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def style_sheet() -> Markup:
    """Return the style that all pages share."""
    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))


def _script(text: str) -> Markup:
    """Accept a script of ours for inlining: nothing in it may end its element."""
    lowered = text.lower()
    if "</script" in lowered or "<!--" in lowered:
        raise ResiduaError("a script of the report page cannot be inlined: it ends its own element")
    return Markup(text.replace("\r\n", "\n"))


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def security_policy(scripts: Sequence[str]) -> str:
    """Return the content security policy: no network, and only these scripts run."""
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


@cache
def environment() -> Environment:
    """Return the jinja2 environment: autoescape on; an absent fact is empty, not an error."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "count", "large", "significant", "tidy", "duration", "finite"):
        env.filters[name] = getattr(numbers, name)
    env.filters["script_json"] = script_json
    env.filters["web_link"] = web_link
    env.globals["definitions"] = DEFINITIONS
    return env


def render_page(
    template: str,
    context: Mapping[str, Any],
    figures: Mapping[str, Any],
    more: Sequence[str] = (),
) -> str:
    """Render a page template (one that extends base.html.j2) to one self-contained HTML text.

    figures: name -> figure description of residua.report.figures; the template places each with
    the macro `plot(name)`. more: scripts of ours, by file name, that only this kind of page needs.
    """
    scripts = [plotly_script()] if figures else []
    scripts += [page_script(name) for name in ("page.js", *more)]
    return (
        environment()
        .get_template(template)
        .render(
            **context,
            figures=dict(figures),
            scripts=scripts,
            style=style_sheet(),
            policy=security_policy(scripts),
        )
    )


def write_page(path: Path, text: str) -> None:
    """Write a page aside and rename it into place: the file is whole or is what it was before.

    Raises ResiduaError with one line when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise ResiduaError(f"cannot write the report {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # nothing to tidy, or the folder itself is not there
            aside.unlink()
