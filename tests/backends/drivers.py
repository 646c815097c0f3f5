"""A driver in a process of its own, to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sweep.paths import packaged_root
from sweep.types import Backend

DRIVER = """
import sys
from functools import partial
from pathlib import Path

from sweep.search.loop import Jobs
from tests.backends.engines import Slow
from tests.contracts.engine import job
from tests.studies import synthetic_inputs
from {module} import {name} as make

folder = Path(sys.argv[1])
backend = make(partial(Slow, inputs=synthetic_inputs(folder)), folder, **{options!r})
waited_for = {{"a", "b"}}
for event in backend.run(Jobs([job(0, 10**6, trial=trial, horizon=10**6) for trial in waited_for])):
    if event.trial in waited_for:
        waited_for.remove(event.trial)
        if not waited_for:
            print("both run", flush=True)
"""


@contextmanager
def driver(make: Callable[..., Backend], folder: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    """One with two jobs, `a@1000000` and `b@1000000`, in the middle of both; killed in the end.

    make: a function of a test module, given an engine, the folder and the options.
    """
    script = DRIVER.format(module=make.__module__, name=make.__name__, options=options)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        cwd=packaged_root(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "both run\n"
        try:
            yield process
        finally:
            process.kill()


def children_of(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """The processes of a driver's workers on this machine, so many."""
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) == count
    return found
