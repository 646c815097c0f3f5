"""`python -m sweep +experiment=NAME`: data, search, confirmation, analysis, best configuration."""

from __future__ import annotations

import sys

from sweep.commands import run_command
from sweep.config import Config


def sweep(config: Config) -> int:
    """Run the pipeline; a second start goes on where the first stopped."""
    from sweep.pipeline import Pipeline

    return Pipeline(config).run()


if __name__ == "__main__":
    sys.exit(run_command("sweep", sys.argv[1:], sweep))
