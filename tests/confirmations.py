"""A confirmation by hand: a winner, the defaults, two baselines, and differences between them."""

from __future__ import annotations

from sweep.evaluation.compare import Difference
from sweep.evaluation.confirmation import Confirmation, Finalist, Simpler
from sweep.evaluation.slices import Slice
from sweep.evaluation.verdict import Comparison, Judgement
from sweep.types import Decision, Score, Verdict

AHEAD = Difference(value=-0.5, low=-0.6, high=-0.4, p_value=0.001, rows=64, clusters=64)
BEHIND = Difference(value=0.2, low=0.1, high=0.3, p_value=0.01, rows=24, clusters=24)


def score(value: float, **metrics: float) -> Score:
    return Score(value=value, standard_error=0.1, examples=64, metrics=metrics)


def confirmation(
    trial: str, *, leader: str | None = None, outcome: Decision = "ship", opened: int = 1
) -> Confirmation:
    """Of this winner, which led the search unless another did."""
    shipped = Verdict(
        check="ship", passed=outcome == "ship", severity="warn", value=-0.5, limit=0, message="so it is"
    )
    comparisons = tuple(
        Comparison(rival=rival, difference=AHEAD, signed_rank_p=0.01, succeeds=False)
        for rival in ("few_shot", "defaults")
    )
    return Confirmation(
        leader=leader or trial,
        trial=trial,
        objective="loss",
        unit="nats per token",
        better="lower",
        seeds=3,
        finalists=(
            Finalist(
                trial=trial, loss=1.9, confirm=score(2.0, perplexity=7.4), test=score(2.1, perplexity=8.2)
            ),
            Finalist(
                trial="0", loss=2.4, confirm=score(2.5, perplexity=12.2), test=score(2.6, perplexity=13.5)
            ),
        ),
        baselines=(
            Simpler(
                name="few_shot",
                description="shown some",
                confirm=score(2.55),
                test=score(2.65),
                succeeds=False,
            ),
            Simpler(name="canned", description="one reply", confirm=score(4.0), test=None, succeeds=False),
        ),
        judgement=Judgement(outcome=outcome, verdict=shipped, comparisons=comparisons),
        verdicts=(
            Verdict(check="verbatim", passed=True, severity="error", value=0.0, limit=0.2, message="none"),
        ),
        slices=(Slice(column="style", value="formal", difference=BEHIND, worse=True),),
        opened=opened,
        opened_by=(),
        as_good=(),
    )
