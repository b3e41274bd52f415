"""What a person sees while a network trains."""

from dataclasses import replace

import pytest

from residua.cli.progress import TerminalWatcher
from residua.training.plan import Phase, Plan
from residua.training.state import State

PLAN = Plan(
    steps=1000,
    steps_per_epoch=10,
    evaluate_every=100,
    record_every=50,
    precision="32-true",
    threads=1,
    compile=False,
    lr=0.1,
    phases=(Phase(0, 1000, 32),),
    seconds_per_step=1.0,
)


@pytest.mark.parametrize("quiet", [False, True])
def test_another_number_of_steps_is_told_where_it_is_quite_another(quiet, capsys):
    watcher = TerminalWatcher(quiet)
    watcher.start(PLAN, State())
    for steps in (980, 930, 925, 1200):
        watcher.repaced(replace(PLAN, steps=steps))
    watcher.end()
    said = [
        line.split(" steps")[0] for line in capsys.readouterr().err.splitlines() if "fit" in line
    ]
    assert said == ([] if quiet else ["930", "1,200"])
