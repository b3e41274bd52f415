"""The pictures that a report shows are the worst ones, with the answers that were scored."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from residua.training.segmentation.cases import CASES, LARGEST_CASE, Worst, step_of
from residua.training.segmentation.scores import Scores


@given(st.integers(0, 999), st.integers(1, 30))
def test_the_worst_pictures_are_kept_while_all_are_looked_at(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores, worst = Scores(("a", "b", "c")), Worst(3)
    said = {}
    for i in rng.permutation(n).tolist():
        p = torch.from_numpy(rng.dirichlet(np.ones(3), (3, 4))).movedim(-1, 0).float()
        truth = rng.integers(0, 3, (3, 4)).astype(np.uint8)
        truth[rng.random((3, 4)) < 0.1] = 255
        said[i] = p.argmax(0).numpy()
        scores.add(i, said[i], truth)
        worst.see(i, p, truth)
    rows = scores.rows()
    assert len(worst.kept) == min(n, CASES)
    shown = sorted(row["mean_iou"] for row in rows[:CASES])
    assert sorted(score for score, _ in worst.kept.values()) == shown
    for i, (_, answer) in worst.kept.items():
        assert (answer["prediction"] == said[i]).all()
        assert 0 <= answer["uncertainty"].min() <= answer["uncertainty"].max() <= 1


def test_large_pictures_are_shown_by_every_second_pixel_or_third() -> None:
    steps = step_of((LARGEST_CASE, LARGEST_CASE + 1, 3 * LARGEST_CASE))
    assert [step.step for step in steps] == [1, 2, 3]
