"""scikit-learn's handwritten digits: 1,797 real pictures of 8x8, ten classes, with no download.

Values 0..16 (counts of ink in 4x4 cells of a 32x32 scan; Alpaydin and Kaynak 1998, UCI) are scaled
to 0..255.
"""

from __future__ import annotations

import numpy as np

from residua.data.pictures import Source, Split

_FULL = 16.0  # the largest count of ink in a cell


def read() -> Source:
    """Return the digits as uint8 (1797, 8, 8, 1) without splits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(np.asarray(bunch.images) * (255.0 / _FULL)).astype(np.uint8)[..., None]
    labels = np.asarray(bunch.target, np.int64)
    names = [f"digits/{i:04d}" for i in range(len(labels))]
    return Source(
        name="digits",
        location="scikit-learn",
        classes=tuple(str(i) for i in range(10)),
        pictures=Split(labels=labels, names=names, channels=1, array=pixels),
    )
