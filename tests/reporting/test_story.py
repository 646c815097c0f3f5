"""What the story says: what to do next, the run's description, what a terminal is told."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, replace

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from sweep.analysis.effects import effects_of
from sweep.evaluation.confirmation import Confirmation
from sweep.evaluation.goal import Goal, goal_of
from sweep.evaluation.guards import Guards
from sweep.evaluation.objective import Loss, MetricObjective
from sweep.reporting.console import Transcript, tell_status
from sweep.reporting.markdown import as_markdown
from sweep.reporting.steps import MENDS, steps_of
from sweep.reporting.story import goal_sentences, worth_of
from sweep.reporting.summary import measured_of
from sweep.search.notes import Handed, read_notes
from sweep.search.stored import StoredStudy, read_study
from sweep.types import Score
from tests.reporting.confirmed import AUDITED, BUSINESS, check, compared, confirmation, score
from tests.studies import PLAN, open_study, run_study, synthetic_engine

GOAL = goal_of(BUSINESS)
CHANCE = compared("nearest", 0.05, 0.1, p=0.4)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    storage = InMemoryStorage()
    run_study(open_study(storage, trials=6), synthetic_engine(tmp_path_factory.mktemp("study")))
    read = read_study(storage, PLAN.name)
    return replace(read, notes=replace(read.notes, goal=GOAL))


def noted(study: StoredStudy, found: Confirmation | None, **notes: object) -> StoredStudy:
    assert study.best is not None
    current = replace(found, leader=study.best.trial.id) if found else None
    return replace(study, notes=replace(study.notes, confirmation=current, **notes))


def test_a_goal_is_read_again_as_it_was_noted() -> None:
    kept = {"goal": json.loads(json.dumps(asdict(GOAL)))}
    assert read_notes(kept).goal == GOAL
    assert read_notes({"goal": {"name": "other"}}).goal is None


def test_a_goal_holds_the_objectives_numbers() -> None:
    assert (GOAL.words, GOAL.currency, GOAL.least) == ("Fewer tickets for agents", "EUR", 0.5)
    assert GOAL.limits["wrong_max"] == 0.05
    assert "toxic_max" not in GOAL.limits
    unpaid = replace(BUSINESS, one_off=replace(BUSINESS.one_off, data=None))
    assert "training and data 150 once" in goal_sentences(goal_of(unpaid))[1]
    strict = replace(BUSINESS, hard_limits=replace(BUSINESS.hard_limits, toxic_max=0.001))
    assert "toxicity is above 0.001" in goal_sentences(goal_of(strict))[0]
    metric = MetricObjective(metric="chrf", rung_metric="loss", escalation=(), proxy=None, labels=None)
    assert goal_of(metric) == Goal(objective="chrf", unit="from 0 to 1", better="higher")
    assert goal_of(Loss(rung_metric="loss")).better == "lower"


DECIDED = {
    "ship": (confirmation("1"), "Review the best configuration, then train with it."),
    "enough": (
        confirmation("1", baseline=compared("nearest", -0.1, 0.1, succeeds=True)),
        "Use nearest, and spend nothing on training.",
    ),
    "chance": (confirmation("1", baseline=CHANCE), "Give more rows or try another base model"),
    "few groups": (
        confirmation("1", baseline=compared("nearest", 0.5, 0.1, clusters=9)),
        "Give more rows or a larger data.split.test: 9 groups",
    ),
    "broken": (
        confirmation("1", verdicts=[check("min_k", 0.95, 0.9, passed=False, severity="error")]),
        "Ship nothing before the errors among guards and limits are mended.",
    ),
    "no better than the defaults": (
        confirmation("1", defaults=compared("defaults", 0.05, 0.1, p=0.4)),
        "Train with the recipe's own values, or search on (budget.trials, now 6)",
    ),
}


@pytest.mark.parametrize(("found", "first"), DECIDED.values(), ids=DECIDED)
def test_the_first_step_follows_the_decision(found: Confirmation, first: str, study: StoredStudy) -> None:
    assert steps_of(noted(study, found))[0].startswith(first)


def test_without_a_simpler_way_one_is_to_be_measured(study: StoredStudy) -> None:
    found = confirmation("1")
    verdict = replace(found.judgement, outcome="no_evidence", comparisons=found.judgement.comparisons[1:])
    alone = replace(found, baselines=(), judgement=verdict)
    assert steps_of(noted(study, alone))[0] == "Measure a simpler way: baseline=[nearest,zero_shot]."


def test_a_simpler_way_that_misses_the_goal_is_to_be_improved(study: StoredStudy) -> None:
    found = confirmation("1", baseline=compared("nearest", -0.1, 0.1))
    assert steps_of(noted(study, found))[0].startswith("Use neither yet: nearest is no worse")
    unlimited = noted(study, found, goal=goal_of(Loss(rung_metric="loss")))
    assert steps_of(unlimited)[0] == "Use nearest, and spend nothing on training."


def test_what_was_handed_over_is_named(study: StoredStudy) -> None:
    assert study.best is not None
    leader = study.best.trial.id
    handed = Handed(trial=leader, leader=leader, best="best/mine.yaml", adapter=None, look="", next="")
    assert "Review best/mine.yaml" in steps_of(noted(study, confirmation(leader), handed=handed))[0]


def test_each_failed_check_has_its_step_errors_first(study: StoredStudy) -> None:
    verdicts = [
        check("resolved", 0.4, 0.55, passed=False),
        check("toxic", math.nan, 0.001, passed=False),
        check("wrong", 0.01, 0.05, passed=True),
        check("polite", 0.4, 0.5, passed=False),
        check("pii_leak", 0.1, 0.0, passed=False, severity="error"),
    ]
    _, *steps = steps_of(noted(study, confirmation("1", verdicts=verdicts, opened=3), audit=AUDITED))
    assert steps == [
        "Take what tells who somebody else is out of the training rows.",
        "Read the replies that resolve nothing, and add rows that show what would have.",
        "Add a scorer named toxic, or set objective.hard_limits.toxic_max=null.",
        "Mend what polite found: found by polite.",
        "Keep new test rows back: these were opened 3 times, and each time tells less.",
        "Mend the data where its failures were allowed: truncated.",
        "Read the warnings about the data: rows.",
    ]


def test_every_check_that_the_product_makes_has_a_step() -> None:
    full = replace(BUSINESS, hard_limits=replace(BUSINESS.hard_limits, toxic_max=0.1))
    names = ("resolved", "wrong", "p95_seconds", "uncalibrated", "pii_leak", "toxic")
    made = full.verdicts(Score(value=0, standard_error=1, examples=1, metrics=dict.fromkeys(names, 0.5)))
    guards = {name for name, field in Guards.__dataclass_fields__.items() if field.type == "Limit"}
    assert {verdict.check for verdict in made} | guards | {"proxy_agrees", "learning_curve"} == set(MENDS)


def test_the_gain_is_told_a_ticket_and_a_month() -> None:
    told = measured_of(confirmation("3", opened=2), GOAL)
    assert told == [
        "On 64 test rows the net value of trial 3 is 0.800 EUR per ticket, the mean of 3 fresh seeds.",
        "Against nearest: +0.500 (95%: +0.400 to +0.600), +10,000 EUR a month (+8,000 to +12,000).",
        "Against defaults: +0.250 (95%: +0.150 to +0.350), +5,000 EUR a month (+3,000 to +7,000).",
        "The test rows were opened 2 times, so the intervals are somewhat too good.",
    ]
    tied = measured_of(confirmation("3", as_good=("5", "0")), GOAL)
    assert any("trial 5 and trial 0 did as well by this measure; trial 3 was chosen" in one for one in tied)
    told = measured_of(confirmation("3", opened=4, opened_by=("first", "second")), GOAL)
    assert told[-1].startswith(
        "The test rows were opened 4 times, by first and second too, so the intervals "
    )
    assert not any("month" in sentence for sentence in measured_of(confirmation("3"), None))


def test_the_runs_description_tells_the_same_story(study: StoredStudy) -> None:
    assert study.best is not None
    found = confirmation(study.best.trial.id)
    words = replace(GOAL, words="Fewer tickets\nfor agents")
    whole = noted(study, found, goal=words, audit=AUDITED, baselines=found.baselines)
    effects = effects_of(study.standings, study.space, seed=0)
    text = as_markdown(whole, effects)
    parts = [
        "> Fewer tickets for agents\n\nWorth having from 0.50 EUR net per ticket",
        f"**Ship trial {study.best.trial.id}.** It beats nearest and defaults",
        "+10,000 EUR a month (+8,000 to +12,000)",
        "1 of 3 checks of the data passed",
        "| way | net value | meets the goal |",
        "| nearest | 0.3500 ± 0.1000 | no |",
        "- Review the best configuration",
        "What matters:",
        f"|  | best (trial {study.best.trial.id}) | defaults (trial 0) |",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    bare = as_markdown(noted(study, None, goal=None), effects)
    assert "not confirmed yet" in bare
    assert "- Let the sweep come to its end" in bare
    assert "way |" not in bare


def test_a_terminal_is_told_the_decision_once_there_is_one(
    study: StoredStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert study.best is not None

    def said(given: StoredStudy) -> str:
        told = Transcript()
        told.console = Console(file=io.StringIO(), width=160)
        tell_status(told, given, driver=None)
        return told.console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    found = confirmation(study.best.trial.id, verdicts=[check("resolved", 0.4, 0.55, passed=False)])
    text = said(noted(study, found))
    assert "verdict  ship: it beats nearest and defaults" in text
    assert "EUR a month" in text
    assert "warning: found by resolved (resolved: 0.4, limit 0.55)" in text
    assert "verdict" not in said(noted(study, None))


def test_a_single_row_has_no_end_to_its_interval() -> None:
    found = confirmation("1")
    winner = replace(found.finalists[0], test=score(0.8, rows=1))
    first = worth_of(replace(found, finalists=(winner, *found.finalists[1:])), GOAL)[0]
    assert first == ("trial 1", "0.800 (-inf to inf)", "16,000 (-inf to inf)")
