"""`python -m sweep.audit +experiment=NAME`: whether the data is fit to train on."""

from __future__ import annotations

import sys

from sweep.commands import run_command
from sweep.config import Config

UNFIT = 1


def run(config: Config) -> int:
    """Print what every check found; 1 where a sweep would be stopped."""
    from sweep.assembly import assemble, audited
    from sweep.reporting.console import Transcript, tell_findings
    from sweep.stages.audit import FILE

    told = Transcript()
    told.title("audit", config.experiment)
    assembly = assemble(config)
    found = audited(assembly)
    tell_findings(told, found)
    told.say(f"\nkept in {assembly.folder / FILE}")
    return UNFIT if found.stopping else 0


if __name__ == "__main__":
    sys.exit(run_command("sweep.audit", sys.argv[1:], run))
