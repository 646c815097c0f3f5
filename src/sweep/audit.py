"""`python -m sweep.audit +experiment=NAME`: whether the data is fit to train on."""

from __future__ import annotations

import sys

from sweep.commands import run_command
from sweep.config import Config

UNFIT = 1


def run(config: Config) -> int:
    """Print what every check found; 1 where a sweep would be stopped."""
    from sweep.assembly import assemble, audited
    from sweep.reporting.console import Transcript, tell_audit

    told = Transcript()
    told.title("audit", config.experiment)
    found = audited(assemble(config))
    tell_audit(told, found.findings, allowed=found.allowed)
    told.say(f"\nkept in {found.path}")
    return UNFIT if found.stopping else 0


if __name__ == "__main__":
    sys.exit(run_command("sweep.audit", sys.argv[1:], run))
