"""Aims: where a score tells them, which way is better, and which lists of them are refused."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import pytest

from sweep.errors import ConfigError
from sweep.evaluation.business import Business
from sweep.evaluation.goal import goal_of
from sweep.evaluation.objective import TAKEN
from sweep.evaluation.pareto import KNOWN, OFFERED, Pareto
from sweep.types import Aimed, Score
from tests.evaluation.tickets import business, outcome

ROWS = [
    outcome("a", resolved=1.0, scores={"chrf": 0.75, "toxic": 0.1}, seconds=0.5, tokens=20),
    outcome("b", resolved=0.0, scores={"chrf": 0.25, "toxic": 0.3}, seconds=0.5, tokens=60),
]


def pareto(*aims: str, **given: Any) -> Pareto:
    plain = business()
    known = {field.name: getattr(plain, field.name) for field in fields(Business)}
    return Pareto(**{**known, "aims": aims, "quality": "chrf", **given})


def test_each_aim_is_told_by_the_score_in_its_own_unit() -> None:
    objective = pareto("net_value", "p95_latency", "quality", "wrong", "tokens", "cost_wrong", "toxic")
    score = objective.score(ROWS)
    found = [aim.of(score) for aim in objective.searched]
    assert found == [
        # Half resolved at 4.00, half wrong at 6.00, the machine at 100 tokens a request, 960 over 6 * 20,000.
        Aimed("net_value", pytest.approx(2.0 - 3.0 - 0.0005 - 0.008), "EUR per ticket", True),
        Aimed("p95_latency", 500.0, "ms", False),
        Aimed("quality", 0.5, "from 0 to 1", True),
        Aimed("wrong", 0.5, "share of tickets", False),
        Aimed("tokens", 40.0, "tokens a reply", False),
        Aimed("cost_wrong", 3.0, "EUR per ticket", False),
        Aimed("toxic", pytest.approx(0.2), "from 0 to 1", False),
    ]


def test_whatever_else_it_says_it_is_business() -> None:
    plain, several = business(), pareto("net_value", "tokens")
    assert several.score(ROWS) == plain.score(ROWS)
    assert several.row_values(ROWS) == plain.row_values(ROWS)
    assert several.verdicts(several.score(ROWS)) == plain.verdicts(plain.score(ROWS))
    assert goal_of(several) == goal_of(plain)
    assert asdict(plain).items() <= asdict(several).items()


def test_a_score_that_lacks_an_aim_has_no_number_for_it() -> None:
    aim = pareto("net_value", "quality", quality="rouge_l").searched[1]
    assert math.isnan(aim.of(Score(value=1.0, standard_error=0.1, examples=2)).value)


def test_each_known_aim_is_something_that_scores_tell() -> None:
    assert set(KNOWN) - {"loss"} <= TAKEN
    told = pareto("net_value", "tokens").score(ROWS).metrics
    assert set(KNOWN) - {"loss"} <= told.keys()
    assert len(set(OFFERED)) == len(OFFERED)


def test_a_scorer_counts_as_better_where_it_is_higher_unless_told_otherwise() -> None:
    aims = pareto("net_value", "exact", "toxic", "hedging:lower", "polite:higher").searched
    assert [(aim.name, aim.higher_is_better) for aim in aims[1:]] == [
        ("exact", True),
        ("toxic", False),
        ("hedging", False),
        ("polite", True),
    ]


@pytest.mark.parametrize(
    ("aims", "given", "told"),
    [
        (["net_value"], {}, r"^objective\.aims: must be two aims at least; .* got \['net_value'\]"),
        ([], {}, r"^objective\.aims: must be two aims at least"),
        (["tokens", "net_value"], {}, r"^objective\.aims: must be a list with net_value first"),
        (
            ["net_value", "quality", "chrf"],
            {},
            r"^objective\.aims: must be of different things, and chrf says",
        ),
        (["net_value", "p95_seconds", "p95_latency"], {}, "of different things, and p95_latency says"),
        (["net_value", "tokens:lower"], {}, r"^objective\.aims: 'tokens:lower' .* Write tokens\.$"),
        (["net_value", "chrf:down"], {}, r"^objective\.aims: 'chrf:down' .* Write chrf:lower\.$"),
        (["net_value", "quality"], {"quality": None}, r"^objective\.quality: must name a scorer"),
        (["net_value", "tokens"], {"rung_metric": "perplexity"}, r"^objective\.rung_metric: must be loss"),
    ],
)
def test_lists_that_are_no_aims_are_refused(aims: list[str], given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pareto(*aims, **given)
