"""`python -m sweep +experiment=NAME`: data, search, confirmation, analysis, best configuration."""

from __future__ import annotations

import sys

from sweep.commands import run_command
from sweep.config import Config
from sweep.errors import ConfigError


def sweep(config: Config) -> int:
    """Run the pipeline; a second start goes on where the first stopped."""
    from sweep.pipeline import Pipeline

    if config.recipe_from:
        raise ConfigError(
            f"recipe_from={config.recipe_from}: a sweep finds a recipe, it does not take one. Use it with "
            "python -m sweep.train, or drop it."
        )
    return Pipeline(config).run()


if __name__ == "__main__":
    sys.exit(run_command("sweep", sys.argv[1:], sweep))
