"""Ray's autoscaler, with nodes that are processes of this machine: it grows and shrinks under a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.paths import packaged_root
from tests.backends.clusters import cluster
from tests.backends.engines import noted

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Set before Ray is imported: the nodes that the autoscaler starts have no address of their own.
LOOPBACK_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

DRIVER = """
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from sweep.search.loop import Jobs
from sweep.types import Progress
from tests.backends.engines import Slow
from tests.backends.test_ray import on_ray
from tests.contracts.engine import job
from tests.studies import synthetic_inputs

jobs = [job(0, 10**7, trial=trial, horizon=10**7) for trial in "abc"]

class Dwindling(Jobs):
    stopped = frozenset()

    def cancelled(self):
        return self.stopped | super().cancelled()

folder = Path(sys.argv[1])
source, running, told = Dwindling(jobs), set(), 0
engine = partial(Slow, inputs=synthetic_inputs(folder))
with closing(on_ray(engine, folder, workers=None, idle_seconds=1)) as backend:
    for event in backend.run(source):
        if not isinstance(event, Progress):
            print(event.job, event.state, flush=True)
            continue
        running.add(event.job)
        if len(running) == 3:
            import ray

            there = sum(node["Alive"] for node in ray.nodes()) - 1
            if there != told:
                print(there, "nodes", flush=True)
                told = there
            source.stopped = frozenset(one.id for one in jobs[1:])
            if there == 1:
                source.interrupt()
"""


def test_nodes_come_with_the_work_and_go_with_it(tmp_path: Path) -> None:
    """One for each job; those whose jobs end are taken away, and what the last one trains goes on."""
    with cluster(host=1) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in {**made.environment, **LOOPBACK_ALONE}.items():
            patch.setenv(name, value)
        made.grow(most=3)
        driver = subprocess.run(
            [sys.executable, "-c", DRIVER, str(tmp_path)],
            cwd=packaged_root(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
    assert driver.returncode == 0, driver.stderr
    said = driver.stdout.splitlines()
    nodes = [line for line in said if line.endswith("nodes")]
    assert (nodes[0], nodes[-1]) == ("3 nodes", "1 nodes")
    ended = [line for line in said if line not in nodes]
    assert sorted(ended) == [f"{trial}@{10**7} stopped" for trial in "abc"]
    assert ended[-1].startswith("a"), "the last one, once the others' nodes are gone"
    assert len(noted(tmp_path, "begun")) == 3, "each once"
