"""What trials of a search with several aims are worth by each, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sweep.analysis.front import front_of
from sweep.types import Aimed, Standing

KNEE, FRONT, BEATEN, UNFIT = "knee", "front", "beaten", "fails guards"


def trades(standings: Sequence[Standing], names: Sequence[str]) -> pd.DataFrame:
    """One row per trial with values by aims: trial, role, a column per aim, one per searched name.

    The knee first, then the others of the front by the first aim, then the rest by number. role: `KNEE`,
    `FRONT`, `BEATEN` by one that is as good in every aim, or `UNFIT`, for its guards. Empty with one aim.
    """
    front = front_of(standings)
    aimed = [standing for standing in standings if standing.state == "complete" and standing.aims]
    roles = {one.trial.id: FRONT for one in front} | {one.trial.id: KNEE for one in front[:1]}
    rest = [standing for standing in aimed if standing.trial.id not in roles]
    rows = [
        {
            "trial": standing.trial.number,
            "role": roles.get(standing.trial.id, UNFIT if standing.broken else BEATEN),
            **{column_of(one): one.value for one in standing.aims},
            **{name: getattr(standing.trial.recipe, name) for name in names},
        }
        for standing in (*front, *rest)
    ]
    return pd.DataFrame(rows, columns=["trial", "role", *map(column_of, aims_of(standings)), *names])


def column_of(aim: Aimed) -> str:
    """The aim's column in `trades`, which no recipe field is called."""
    return f"aim/{aim.aim}"


def aims_of(standings: Sequence[Standing]) -> tuple[Aimed, ...]:
    """The aims as the first trial that has any tells them; none where the loss is the only one."""
    return next((standing.aims for standing in standings if standing.aims), ())
