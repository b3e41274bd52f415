"""Workers change when a thing is ready, and nothing else; they never keep a program from ending."""

import subprocess
import sys

import pytest

from residua.data.workers import Workers


def made(item):
    return item, None


@pytest.mark.parametrize("count", [0, 1])
def test_items_come_in_order_also_twice(count):
    workers = Workers(made, count)
    assert [int(item) for item, _ in workers.each(range(5))] == [0, 1, 2, 3, 4]
    assert [int(item) for item, _ in workers.each(iter((7, 6)))] == [7, 6]
    assert list(workers.each(())) == []
    workers.close()


@pytest.mark.slow
def test_a_program_that_fails_with_workers_running_ends():
    """Its traceback holds the workers; they ignore the SIGTERM with which Python stops children."""
    program = (
        "import sys\n"
        "from residua.data.workers import Workers\n"
        "running = Workers(abs, 1).each(range(10**6))\n"
        "next(running)\n"
        "sys.kept = running\n"
        "raise SystemExit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=90).returncode == 3
