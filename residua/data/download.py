"""Fetch a public file: aside, checked against its MD5, then renamed. Nothing half-fetched stays.

$RESIDUA_MIRROR, an address, is asked first for FOLDER/FILE (for machines behind a wall).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from residua.data.cache import default_folder
from residua.data.naming import shown
from residua.errors import BadInput, ResiduaError

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20
_TRIES = 2


@dataclass(frozen=True)
class Remote:
    """A public file: its name, the addresses that have it, and its MD5."""

    name: str
    urls: tuple[str, ...]
    md5: str


def data_folder(data: Path | None, name: str) -> Path:
    """Return the folder of a named data set's files: `data`, else one in the cache folder."""
    return default_folder() / "data" / name if data is None else Path(data).expanduser()


def fetch(
    remote: Remote,
    folder: Path,
    *,
    download: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the file in `folder`, downloading it if it is not there.

    `progress(done, total)` counts bytes. Raises `BadInput` where it is missing and `download` is
    off, `ResiduaError` where no address gives the right file; both say which file to put where.
    """
    target = folder / remote.name
    if target.is_file():
        return target
    advice = f"get {remote.name} from {remote.urls[0]} and put it into {shown(folder)}"
    if not download:
        raise BadInput(f"{shown(target)}: no such file; {advice}")
    faults: list[str] = []
    for url in _addresses(remote, folder):
        for _ in range(_TRIES):
            try:
                return _fetch(url, remote, target, progress)
            except _WrongContent as error:
                faults.append(str(error))
                break  # the same bytes would come again
            except (OSError, http.client.HTTPException) as error:
                faults.append(f"{url}: {_reason(error)}")
    raise ResiduaError(f"{remote.name} cannot be downloaded ({faults[-1]}); {advice}")


class _WrongContent(Exception):  # noqa: N818 - never leaves this file
    """What came is not the file that was asked for."""


def _addresses(remote: Remote, folder: Path) -> Sequence[str]:
    mirror = os.environ.get("RESIDUA_MIRROR")
    own = [f"{mirror.rstrip('/')}/{folder.name}/{remote.name}"] if mirror else []
    return [*own, *remote.urls]


def _fetch(
    url: str, remote: Remote, target: Path, progress: Callable[[int, int], None] | None
) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "residua"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        total = int(response.headers.get("Content-Length") or 0)
        handle, aside = tempfile.mkstemp(prefix=f".{remote.name}.aside-", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                md5, done = hashlib.md5(usedforsecurity=False), 0
                while data := response.read(_CHUNK):
                    file.write(data)
                    md5.update(data)
                    done += len(data)
                    if progress is not None:
                        progress(done, total)
                file.flush()
                os.fsync(file.fileno())
            if done < total:
                raise ConnectionError(f"the connection broke after {done:,} of {total:,} bytes")
            if md5.hexdigest() != remote.md5:
                raise _WrongContent(
                    f"{url}: MD5 is {md5.hexdigest()}, expected {remote.md5}; nothing was kept"
                )
            Path(aside).replace(target)
        finally:
            Path(aside).unlink(missing_ok=True)
    return target


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
