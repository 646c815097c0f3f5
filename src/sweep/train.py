"""`python -m sweep.train +experiment=NAME +best=NAME`: production training with a found configuration."""

from __future__ import annotations

import sys

from sweep.commands import run_command
from sweep.config import Config


def train(config: Config) -> int:
    """Train, score on the golden split, register; a second start goes on from the last checkpoint."""
    from sweep.production import Production

    return Production(config).run()


if __name__ == "__main__":
    sys.exit(run_command("sweep.train", sys.argv[1:], train))
