"""Write a surface as a legacy VTK file, which ParaView, VisIt and others open.

A structured grid of columns x rows x 1 points (x, y, height), x running fastest, and any number of values
a point: "VTK File Formats", The VTK User's Guide (Kitware), simple legacy formats. Binary numbers are
big-endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def write_vtk(
    file: IO[bytes], x: Array, y: Array, height: Array, values: Mapping[str, Array], title: str
) -> None:
    """Write the grid x (columns,), y (rows,), height and each value (rows, columns), as doubles.

    Every row starts at x[0]. Names of values lose their white space; the title is cut to one short line.
    """
    rows, columns = height.shape
    across, along = np.meshgrid(x, y)  # (rows, columns) each: x runs fastest when read row by row
    points = np.stack([across, along, height], axis=-1).reshape(-1, 3)
    line = " ".join(title.split())[:200].encode("ascii", "replace").decode()
    head = f"# vtk DataFile Version 3.0\n{line}\nBINARY\nDATASET STRUCTURED_GRID\n"
    head += f"DIMENSIONS {columns} {rows} 1\nPOINTS {rows * columns} double\n"
    file.write(head.encode() + _doubles(points))
    file.write(f"\nPOINT_DATA {rows * columns}\n".encode())
    for name, value in values.items():
        spelled = "_".join(name.split())
        file.write(f"SCALARS {spelled} double 1\nLOOKUP_TABLE default\n".encode())
        file.write(_doubles(value.reshape(-1)) + b"\n")


def _doubles(values: Array) -> bytes:
    return np.ascontiguousarray(values, dtype=">f8").tobytes()
