"""Who leads a search: by the loss, or of several aims the knee among the trials that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sweep.types import Standing

Array = NDArray[np.float64]

# Distances that differ by less are one, whatever the order of their sums.
_DIGITS = 12
# A hyperplane through points that nearly lie on a lower one says nothing.
_ILL_CONDITIONED = 1e9


def winner_of(standings: Sequence[Standing]) -> Standing | None:
    """The complete trial that leads among those that may win: of several aims the knee, else the lowest loss.

    Where none may, the one that fails its guards least: whoever speaks of it says that it fails.
    """
    return next(iter(contenders_of(standings)), None)


def contenders_of(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    """The winner, then those that it may be chosen by once others are complete; the rest never matter."""
    complete = [standing for standing in standings if standing.state == "complete"]
    return front_of(complete) or tuple(sorted(complete, key=lambda one: (one.violation, one.loss))[:1])


def front_of(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    """The complete trials that no other beats in every aim: the knee, then the others by the first aim.

    Among those that hold to their guards; where none does, among those that fail least. Of equals the one
    with the lower loss comes first. Empty where the search has one aim.
    """
    aimed = [standing for standing in standings if standing.state == "complete" and standing.aims]
    least = min((standing.violation for standing in aimed), default=0.0)
    able = sorted((one for one in aimed if one.violation == least), key=lambda one: one.loss)
    if not able:
        return ()
    worth = goodness(able)
    on_front = non_dominated(worth)
    members = [standing for standing, on in zip(able, on_front, strict=True) if on]
    knee = members[knee_of(worth[on_front])]
    others = sorted((one for one in members if one is not knee), key=lambda one: -goodness([one])[0, 0])
    return (knee, *others)


def goodness(standings: Sequence[Standing]) -> Array:
    """Values of trials by aims, trials in rows, so turned that the highest is the best."""
    return np.array(
        [[one.value if one.higher_is_better else -one.value for one in s.aims] for s in standings],
        dtype=float,
    )


def non_dominated(worth: Array) -> NDArray[np.bool_]:
    """Which rows no other is at least as good as in every aim and better in one; equals stand together."""
    # Row by row: all pairs at once take gigabytes for ten thousand trials.
    beaten = [((worth >= row).all(axis=1) & (worth > row).any(axis=1)).any() for row in worth]
    return ~np.array(beaten, dtype=bool)


def knee_of(worth: Array) -> int:
    """Of a front, the point that bulges most: farthest from the hyperplane through each aim's best point.

    Each aim is scaled by the front's range; with two aims that is the distance to the chord. Where the best
    points span no hyperplane on which every aim can be traded, as where one is best in two aims, it is the
    point nearest to the best values of all. Of equals the best in the first aim, then the first one.
    Sources: Das 1999, Structural Optimization 18:107; nearest: Yu 1973, Management Science 19:936.
    """
    span = np.ptp(worth, axis=0)
    varied = span > 0
    scaled = (worth[:, varied] - worth[:, varied].min(axis=0)) / span[varied]
    bulge = _beyond_plane(scaled)
    if bulge is None:
        bulge = -np.linalg.norm(1.0 - scaled, axis=1)
    return int(np.lexsort((-worth[:, 0], -bulge.round(_DIGITS)))[0])


def _beyond_plane(scaled: Array) -> Array | None:
    """Signed distances to the hyperplane through each aim's best point, towards better; None without one."""
    # Of several points that are best in one aim, the one that is best in all together.
    corners = scaled[[int(np.lexsort((-scaled.sum(axis=1), -column))[0]) for column in scaled.T]]
    if not corners.size or np.linalg.cond(corners) > _ILL_CONDITIONED:
        return None
    normal = np.linalg.solve(corners, np.ones(len(corners)))
    if (normal <= 0).any():
        return None
    return np.asarray((scaled @ normal - 1.0) / np.linalg.norm(normal))
