"""metrics.csv and the TensorBoard events of a run; a resume drops what is past the checkpoint."""

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from residua.training.checkpoint import CannotSaveError
from residua.training.logs import Logged, Logs, columns
from residua.training.state import State, Watcher

COLUMNS = columns("accuracy")


def row(step):
    numbers = (step, step / 10, 0.5, 2.0 - step / 100, 1.5, 0.25 + step / 100, 0.1)
    return dict(zip(COLUMNS, numbers, strict=True))


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder, tag):
    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def logged(folder, state, first, last):
    """Log steps first .. last, with an evaluation after each tenth."""
    logs = Logs(folder, state.history, state.step)
    watcher = Logged(Watcher(), logs)
    for step in range(first, last + 1):
        state.step = step
        watcher.step(state, 1.0 / step, 0.1)
        if step % 10 == 0:
            state.history.append(row(step))
            watcher.evaluated(state.history[-1])
    logs.close()


def test_the_csv_has_a_header_and_a_row_an_evaluation(tmp_path):
    logged(tmp_path, State(), 1, 25)
    found = rows(tmp_path)
    assert [tuple(r) for r in found] == [COLUMNS, COLUMNS]
    assert [{key: float(value) for key, value in r.items()} for r in found] == [row(10), row(20)]


def test_the_csv_is_there_with_its_header_before_the_first_evaluation(tmp_path):
    Logs(tmp_path, [], 0).close()
    assert (tmp_path / "metrics.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_the_events_hold_every_kept_step_and_every_evaluation(tmp_path):
    logged(tmp_path, State(), 1, 20)
    losses = events(tmp_path, "train/loss")
    assert [step for step, _ in losses] == list(range(1, 21))
    assert [value for _, value in losses] == pytest.approx([1 / step for step in range(1, 21)])
    assert events(tmp_path, "train/lr")[0] == (1, pytest.approx(0.1))
    assert events(tmp_path, "val/accuracy") == [
        (10, pytest.approx(0.35)),
        (20, pytest.approx(0.45)),
    ]
    assert events(tmp_path, "train/mean_loss")[1] == (20, pytest.approx(1.8))
    assert events(tmp_path, "val/loss")[0] == (10, pytest.approx(1.5))


def test_a_resume_drops_what_is_past_its_checkpoint(tmp_path):
    logged(tmp_path, State(), 1, 27)  # killed; the checkpoint is of step 15
    logged(tmp_path, State(step=15, history=[row(10)]), 16, 30)
    assert [float(r["step"]) for r in rows(tmp_path)] == [10, 20, 30]
    assert [step for step, _ in events(tmp_path, "train/loss")] == list(range(1, 31))
    assert [step for step, _ in events(tmp_path, "val/accuracy")] == [10, 20, 30]


def test_a_resume_from_the_start_begins_the_csv_anew(tmp_path):
    logged(tmp_path, State(), 1, 12)
    logged(tmp_path, State(), 1, 10)
    assert [float(r["step"]) for r in rows(tmp_path)] == [10]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CannotSaveError) as raised:
        Logs(tmp_path / "file", [], 0)
    assert str(tmp_path / "file") in str(raised.value)
    assert "\n" not in str(raised.value)


class Everything(Watcher):
    def __init__(self):
        self.told = []

    def note(self, text):
        self.told.append(("note", text))

    def warn(self, text):
        self.told.append(("warn", text))

    def progress(self, what, done, total):
        self.told.append(("progress", what, done, total))

    def start(self, plan, state):
        self.told.append(("start", plan, state))

    def step(self, state, loss, lr):
        self.told.append(("step", loss, lr))

    def evaluated(self, row):
        self.told.append(("evaluated", row))

    def end(self):
        self.told.append(("end",))


@pytest.mark.parametrize("with_logs", [True, False])
def test_everything_is_passed_on_with_and_without_logs(tmp_path, with_logs):
    watcher, logs = Everything(), Logs(tmp_path, [], 0) if with_logs else None
    passing, state, evaluation = Logged(watcher, logs), State(step=10), row(10)
    passing.note("a")
    passing.warn("b")
    passing.progress("decoding", 1, 2)
    passing.start(None, state)
    passing.step(state, 0.5, 0.1)
    passing.evaluated(evaluation)
    passing.end()
    assert watcher.told == [
        ("note", "a"),
        ("warn", "b"),
        ("progress", "decoding", 1, 2),
        ("start", None, state),
        ("step", 0.5, 0.1),
        ("evaluated", evaluation),
        ("end",),
    ]
    if logs is not None:
        logs.close()


def test_a_watcher_of_ones_own_needs_no_method():
    watcher = Watcher()
    watcher.note("a")
    watcher.warn("b")
    watcher.progress("decoding", 1, 2)
    watcher.step(State(), 0.5, 0.1)
    watcher.evaluated(row(1))
    assert watcher.end() is None
