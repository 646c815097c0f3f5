"""`python -m sweep.audit +experiment=NAME`: whether the data is fit to train on, before any model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

from sweep.commands import run_command
from sweep.config import Config

UNFIT = 1


def run(config: Config) -> int:
    """Print what every check found; 1 where a sweep would be stopped."""
    from sweep.data.load import load
    from sweep.data.split import split
    from sweep.reporting.console import Transcript, tell_audit
    from sweep.stages.audit import audit_data, stopping

    told = Transcript()
    told.title("audit", config.experiment)
    data = split(load(config.data), config.data.split, seed=config.seed)
    path = Path(config.output) / "audit.json"
    findings = audit_data(data, config.audit, seed=config.seed, path=path)
    tell_audit(told, findings, allowed=config.audit.allow)
    told.say(f"kept in {path}")
    return UNFIT if stopping(findings, config.audit) else 0


if __name__ == "__main__":
    sys.exit(run_command("sweep.audit", sys.argv[1:], run))
