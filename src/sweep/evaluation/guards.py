"""Whether a trial learnt its rows by heart, or forgot what the base model knew: what engines measure, judged.

A guard that can't tell passes, and its message says why; its value is then NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from scipy.stats import norm, rankdata

from sweep.errors import ConfigError
from sweep.evaluation.compare import loss_score
from sweep.evaluation.rows import Row
from sweep.types import Limit, RowProbe, Verdict

# The guards that judge what was learnt by heart.
PROBED = ("loss_ratio", "min_k", "verbatim")

_WORDS = 8
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Each guard's limits, by its name; `conf/guards/standard.yaml` says what they mean.

    rows: probed at most of either side of a trial, None where trials are not probed; continued: of these.
    least_rows: that `min_k` needs of either side.
    """

    rows: int | None
    continued: int
    loss_ratio: Limit
    min_k: Limit
    least_rows: int
    verbatim: Limit
    overlap: Limit
    forgetting: Limit

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if not isinstance(limit, Limit):
                continue
            # A limit of 0 has no multiples to tell by how far it was exceeded, which `constraints` does.
            worst = math.inf if limit.error is None else limit.error
            if limit.warn < 0 or worst <= 0 or worst < limit.warn:
                raise ConfigError(
                    f"guards.{field.name}: warn must be at least 0, error above 0 and not below warn; got "
                    f"warn={limit.warn:g}, error={worst:g}. Change one, or write error=null to warn only."
                )
        if self.least_rows < 2:
            raise ConfigError(f"guards.least_rows: must be at least 2, got {self.least_rows}. Raise it.")
        if self.rows is not None and self.rows < 1:
            raise ConfigError(
                f"guards.rows: must be at least 1, got {self.rows}. Raise it, or write null for no guards."
            )
        if self.continued < 0:
            raise ConfigError(f"guards.continued: must be at least 0, got {self.continued}. Raise it.")


def guard_probe(probed: Sequence[RowProbe], guards: Guards) -> tuple[Verdict, ...]:
    """The verdicts of `PROBED`, in that order, from rows of the train split and rows never seen."""
    trained = [row for row in probed if row.tokens and row.split == "train"]
    held_out = [row for row in probed if row.tokens and row.split != "train"]
    return (
        _loss_ratio(trained, held_out, guards.loss_ratio),
        _min_k(trained, held_out, guards.min_k, least_rows=guards.least_rows),
        # Held-out rows are no yardstick here: where few answers serve all rows, they are recited as well.
        _verbatim([row.verbatim for row in trained if row.verbatim is not None], guards.verbatim),
    )


def guard_overlap(
    outputs: Sequence[str], references: Sequence[str], trained: Iterable[str], guards: Guards
) -> Verdict:
    """Share of eight words in a row of `outputs` that a trained answer has too, less that of `references`.

    outputs: answers to held-out prompts. references: the right answers to the same ones. trained: the
    train split's answers. Shares are of all such sequences of the texts together.
    """
    known = {piece for text in trained for piece in _pieces(text)}
    written, right = (_share_known(texts, known) for texts in (outputs, references))
    if math.isnan(written) or math.isnan(right):
        return _cannot_tell("overlap", guards.overlap, f"no answer or no reference has {_WORDS} words")
    return _judge(
        "overlap",
        written - right,
        guards.overlap,
        found=f"{written:.0%} of what the model writes stands word for word in train answers, against "
        f"{right:.0%} of the right answers",
        mend="it pieces answers together from what it has seen: train for fewer epochs or vary the rows",
    )


def guard_forgetting(base: Sequence[Row], tuned: Sequence[Row], guards: Guards) -> Verdict:
    """How much of its loss on unrelated text the tuned model has more than its base model, as a share."""
    before, after = loss_score(base).value, loss_score(tuned).value
    rise = _ratio(after, before) - 1.0
    return _judge(
        "forgetting",
        rise,
        guards.forgetting,
        found=f"on unrelated text the loss is {rise:+.1%} against the base model's",
        mend="the model forgets what it knew: lower the learning rate or the rank, or mix general rows in",
    )


def rising(losses: Sequence[float], *, noise: Sequence[float] | None = None) -> bool:
    """Whether validation loss rose at the last two of a trial's evaluations, oldest first: time to stop it.

    noise: standard error of each step's change, as `paired_error` gives it, one fewer than losses; a rise
    within it is none. Raises ValueError where their numbers don't fit.
    """
    steps = [after - before for before, after in pairwise(losses)]
    allowed = [0.0] * len(steps) if noise is None else noise
    rises = [step > most for step, most in zip(steps, allowed, strict=True)]
    return len(rises) >= 2 and all(rises[-2:])


def constraints(verdicts: Iterable[Verdict]) -> float:
    """How far a trial is beyond its guards' error limits, in the sense of Optuna: at 0 it may win.

    Each failed guard of severity "error" adds 1 - limit / value, so that worse trials have more, and
    none has infinitely much.
    """
    failed = [verdict for verdict in verdicts if not verdict.passed and verdict.severity == "error"]
    return sum(1.0 - verdict.limit / verdict.value for verdict in failed)


def _loss_ratio(trained: Sequence[RowProbe], held_out: Sequence[RowProbe], limit: Limit) -> Verdict:
    if not (trained and held_out):
        return _cannot_tell("loss_ratio", limit, "no row with a response was probed on one of the sides")
    before, after = (
        loss_score([(row.row, row.nats, row.tokens) for row in rows]).value for rows in (trained, held_out)
    )
    ratio = _ratio(after, before)
    return _judge(
        "loss_ratio",
        ratio,
        limit,
        found=f"the loss on held-out rows is {ratio:.1f} times that on trained rows",
        mend="it has learnt its rows rather than the subject: train for fewer epochs or lower the rank",
    )


def _min_k(
    trained: Sequence[RowProbe], held_out: Sequence[RowProbe], limit: Limit, *, least_rows: int
) -> Verdict:
    fewest = min(len(trained), len(held_out))
    if fewest < least_rows:
        return _cannot_tell(
            "min_k", limit, f"one side has {fewest} probed rows, and at least {least_rows} must be there"
        )
    told = auc([row.min_k for row in trained], [row.min_k for row in held_out])
    base = auc([row.base_min_k for row in trained], [row.base_min_k for row in held_out])
    if base in (0.0, 1.0):
        return _cannot_tell("min_k", limit, "the base model alone tells its trained rows from the others")
    area = _beyond(told, base)
    return _judge(
        "min_k",
        area,
        limit,
        found=f"by its least likely words a trained row is told from a new one in {area:.0%} of pairs, "
        "chance differences between them left out",
        mend="the model remembers single rows, which others could draw out of it: train for fewer epochs",
    )


def _verbatim(recited: Sequence[bool], limit: Limit) -> Verdict:
    if not recited:
        return _cannot_tell("verbatim", limit, "no trained row was continued from its middle")
    share = sum(recited) / len(recited)
    return _judge(
        "verbatim",
        share,
        limit,
        found=f"{share:.0%} of the trained answers are continued word for word from their middle",
        mend="the model recites its rows: train for fewer epochs, and keep out of them what must not get out",
    )


def auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """How often one of the first is above one of the second, 0 to 1, a tie counting half.

    Source: Mann and Whitney 1947, doi:10.1214/aoms/1177730491.
    """
    ranks = rankdata(np.concatenate([higher, lower]))
    count = len(higher)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(lower)))


def _beyond(told: float, base: float) -> float:
    """What of an area under the curve training has made: that of the shift which scores took since `base`.

    Scores of both sides are taken as normal, of one spread. Source: Green and Swets 1966, chapter 3.
    """
    return float(norm.cdf(norm.ppf(told) - norm.ppf(base)))


def _judge(check: str, value: float, limit: Limit, *, found: str, mend: str) -> Verdict:
    fails = limit.error is not None and value > limit.error
    bound = limit.error if fails and limit.error is not None else limit.warn
    passed = not value > bound
    return Verdict(
        check=check,
        passed=passed,
        severity="error" if fails else "warn",
        value=value,
        limit=bound,
        message=found if passed else f"{found}: {mend}",
    )


def _cannot_tell(check: str, limit: Limit, why: str) -> Verdict:
    return Verdict(
        check=check,
        passed=True,
        severity="warn",
        value=math.nan,
        limit=limit.warn,
        message=f"can't tell: {why}",
    )


def _ratio(after: float, before: float) -> float:
    if before == 0.0:
        return math.inf if after > 0.0 else 1.0
    return after / before


def _share_known(texts: Sequence[str], known: set[tuple[str, ...]]) -> float:
    """NaN where there are none."""
    pieces = [piece for text in texts for piece in _pieces(text)]
    return sum(piece in known for piece in pieces) / len(pieces) if pieces else math.nan


def _pieces(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return zip(*(words[start:] for start in range(_WORDS)), strict=False)
