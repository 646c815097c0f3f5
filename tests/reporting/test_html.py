"""The report holds every trial and claim of its study, is one file, and runs nothing that it was given."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from optuna.storages import InMemoryStorage

from sweep.analysis.effects import Effects, effects_of
from sweep.analysis.outcomes import outcomes
from sweep.evaluation.compare import Difference
from sweep.evaluation.goal import goal_of
from sweep.evaluation.objective import Loss
from sweep.evaluation.slices import Slice
from sweep.reporting.html import render, write_report
from sweep.reporting.markdown import as_markdown
from sweep.search.notes import Asked, Handed
from sweep.search.scheduler import Full, Scheduler
from sweep.search.space import Space
from sweep.search.stored import StoredStudy, read_study
from sweep.types import Capacity, Done
from tests.reporting.confirmed import AUDITED, BUSINESS, check, compared, confirmation, score
from tests.studies import PLAN, open_study, run_study, synthetic_engine

EFFECTS: dict[int, tuple[object, Effects]] = {}
VOID = ("br", "link", "meta")


class Page(HTMLParser):
    """Texts by the id of the section they stand in, cells of each table row, and every tag's attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.texts: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.links += [given[name] or "" for name in ("href", "src") if name in given]
        if tag in ("section", "table") and (name := given.get("id")):
            self.sections.append(name)
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th") and self.rows.get(self.section):
            self.rows[self.section][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open or "style" in self.open:
            return
        self.texts[self.section] = self.texts.get(self.section, "") + data
        if {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data.strip()

    @property
    def section(self) -> str:
        return self.sections[-1] if self.sections else "summary"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    storage = InMemoryStorage()
    study = run_study(open_study(storage), synthetic_engine(tmp_path_factory.mktemp("study")))
    assert study.best is not None
    found = confirmation(study.best.trial.id)
    study.note("base_loss", 4.25)
    study.note("goal", asdict(goal_of(BUSINESS)))
    study.note("audit", AUDITED.as_json())
    study.note("baselines", {"found": [asdict(one) for one in found.baselines]})
    study.note("confirmation", asdict(found))
    return read_study(storage, PLAN.name)


def with_notes(study: StoredStudy, **notes: object) -> StoredStudy:
    return replace(study, notes=replace(study.notes, **notes))


def confirmed(study: StoredStudy, trial: str | None = None, **given: object) -> StoredStudy:
    assert study.best is not None
    found = confirmation(trial or study.best.trial.id, leader=study.best.trial.id, **given)
    return with_notes(study, confirmation=found)


def page_of(study: StoredStudy) -> Page:
    key = id(study.standings)
    if key not in EFFECTS:
        # With the standings, so that no others get their id.
        EFFECTS[key] = study.standings, effects_of(study.standings, study.space, seed=study.seed)
    return Page(render(study, EFFECTS[key][1]))


def test_every_trial_is_in_the_table_best_first(study: StoredStudy) -> None:
    page, table = page_of(study), outcomes(study.standings, study.names).set_index("trial")
    heading, *rows = page.rows["trials"]
    assert heading[:3] == ["place", "trial", "state"]
    assert [row[0] for row in rows] == [str(place) for place in range(1, PLAN.trials + 1)]
    assert {row[1] for row in rows} == {standing.trial.id for standing in study.standings}
    for row in rows:
        cells = dict(zip(heading, row, strict=True))
        trial = table.loc[int(row[1])]
        assert cells["what became of it"] == trial["reason"]
        assert cells["batch size"] == str(trial["batch_size"])
        assert cells[f"loss at {trial['examples_seen']:,}"] == f"{trial['loss']:.4f}"


ORDER = [
    *("goal", "decision", "baselines", "comparison", "checks", "slices", "next"),
    *("searched", "effects", "pairs", "curves", "all", "trials", "data", "made"),
]


def test_it_is_told_from_the_goal_to_where_it_comes_from(study: StoredStudy) -> None:
    page = page_of(study)
    assert page.sections == ORDER
    assert {link.removeprefix("#") for link in page.links} <= set(ORDER)


def test_the_goal_is_told_in_the_users_words_with_limits_and_amounts(study: StoredStudy) -> None:
    text = page_of(study).texts["goal"]
    for part in (
        "Fewer tickets for agents",
        "from 0.50 EUR net per ticket, with at least 55% of the tickets resolved, at most 5% answered",
        "20,000 tickets a month",
        "resolved counts 4.20 EUR, one handed over costs 0.60, one answered wrongly 6.00",
        "training and data 950 once, spread over 6 months",
    ):
        assert part in text
    assert "toxicity" not in text


def test_the_decision_tells_what_the_winner_is_worth_a_ticket_and_a_month(study: StoredStudy) -> None:
    page = page_of(study)
    assert study.best is not None
    trial = f"trial {study.best.trial.id}"
    assert f"Ship {trial}." in page.texts["decision"]
    assert "It beats nearest and defaults" in page.texts["decision"]
    heading, *rows = page.rows["decision"]
    assert heading == ["", "EUR per ticket", "EUR a month"]
    worth = {row[0]: row[1:] for row in rows}
    # Student's t of 64 rows: 1.998 standard errors of 0.1, times 20,000.
    assert worth[trial] == ["0.800 (0.600 to 1.000)", "16,000 (12,003 to 19,997)"]
    assert worth["nearest, the best simpler way"][0].startswith("0.300 ")
    assert worth["defaults (trial 0)"][0].startswith("0.550 ")
    assert worth[f"{trial} less nearest"] == ["+0.500 (+0.400 to +0.600)", "+10,000 (+8,000 to +12,000)"]
    assert worth[f"{trial} less defaults"] == ["+0.250 (+0.150 to +0.350)", "+5,000 (+3,000 to +7,000)"]


def test_the_data_is_judged_in_one_line_and_in_full_below(study: StoredStudy) -> None:
    page = page_of(study)
    line = "1 of 3 checks of the data passed; failed, but allowed: truncated; warnings: rows."
    assert line in page.texts["decision"]
    assert {row[0]: row[1] for row in page.rows["data"]} == {
        "rows": "warning",
        "truncated": "allowed",
        "distinct": "ok",
    }


def test_what_need_not_be_trained_is_said_first(study: StoredStudy) -> None:
    enough = compared("nearest", 0.05, 0.1, p=0.4, succeeds=True)
    assert "Don't train: nearest will do." in page_of(confirmed(study, baseline=enough)).texts["decision"]
    better = compared("nearest", -0.05, 0.1, p=0.4)
    text = page_of(confirmed(study, baseline=better)).texts["decision"]
    assert "Don't train: nearest is no worse, though it misses the goal." in text
    chance = compared("nearest", 0.05, 0.1, p=0.4)
    text = page_of(confirmed(study, baseline=chance)).texts["decision"]
    assert "No evidence that trial" in text
    assert "The gain over nearest could be chance" in text


def test_a_winner_that_misses_the_goal_is_told_so(study: StoredStudy) -> None:
    missed = check("resolved", 0.4, 0.55, passed=False)
    unknown = check("wrong", math.nan, 0.05, passed=False)
    text = page_of(confirmed(study, verdicts=[missed, unknown])).texts["decision"]
    assert "misses the goal: resolved." in text
    assert "misses" not in page_of(study).texts["decision"]


def test_each_simpler_way_has_its_value_shares_time_and_tokens(study: StoredStudy) -> None:
    heading, first, second = page_of(study).rows["baselines"]
    assert dict(zip(heading, first, strict=True)) == {
        "way": "nearest",
        "net value": "0.3500 ± 0.1000",
        "resolved": "40%",
        "escalated": "25%",
        "wrong": "35%",
        "p95 seconds": "1.25",
        "tokens read": "234",
        "written": "6",
        "meets the goal": "no",
        "what it is": "how nearest answers",
    }
    assert second[0] == "few shot"


def test_each_guard_and_limit_is_told_with_how_it_ended_the_failed_first(study: StoredStudy) -> None:
    verdicts = [
        check("resolved", 0.6, 0.55, passed=True),
        check("p95_latency_ms", 3100.0, 2500, passed=False),
        check("overlap", math.nan, 0.1, passed=True),
        check("min_k", 0.95, 0.9, passed=False, severity="error"),
    ]
    _, *rows = page_of(confirmed(study, verdicts=verdicts)).rows["checks"]
    assert rows == [
        ["min k", "error", "found by min_k", "0.95", "0.9"],
        ["p95 latency ms", "warning", "found by p95_latency_ms", "3,100", "2,500"],
        ["resolved", "ok", "found by resolved", "0.6", "0.55"],
        ["overlap", "unknown", "found by overlap", "-", "0.1"],
    ]


def test_every_part_of_the_traffic_is_shown_and_the_worse_ones_are_marked(study: StoredStudy) -> None:
    def part(value: str, gain: float, *, worse: bool) -> Slice:
        difference = Difference(
            value=gain, low=gain - 0.2, high=gain + 0.2, p_value=0.01, rows=30, clusters=30
        )
        return Slice(column="channel", value=value, difference=difference, worse=worse)

    parts = (part("chat", 0.5, worse=False), part("phone", -0.5, worse=True))
    page = page_of(confirmed(study, slices=parts))
    assert page.rows["slices"][1:] == [
        ["channel: phone", "30", "-0.500 (-0.700 to -0.300)", "worse"],
        ["channel: chat", "30", "+0.500 (+0.300 to +0.700)", ""],
    ]
    assert "served worse than by nearest: channel phone." in page.texts["next"]
    assert "No part of the test rows" in page_of(study).texts["slices"]


def test_a_loss_is_told_without_money(study: StoredStudy) -> None:
    gains = {"baseline": compared("untrained", -0.5, 0.1), "defaults": compared("defaults", -0.25, 0.1)}
    told = confirmed(study, objective="loss", unit="nats per token", better="lower", **gains)
    bare = tuple(replace(one, confirm=score(3.0)) for one in study.notes.baselines or ())
    page = page_of(with_notes(told, goal=goal_of(Loss(rung_metric="loss")), baselines=bare))
    assert "judged by their loss, nats per token: the lower, the better" in page.texts["goal"]
    assert "Ship trial" in page.texts["decision"]
    assert page.rows["decision"][0] == ["", "nats per token"]
    assert page.rows["baselines"][0] == ["way", "loss", "what it is"]
    assert "None was set." in page.texts["checks"]
    story = " ".join(page.texts[name] for name in ORDER[:7])
    for word in ("EUR", "month", "goal", "None None", "nan"):
        assert word not in story


def test_before_confirmation_it_shows_what_is_known(study: StoredStudy) -> None:
    page = page_of(with_notes(study, confirmation=None, handed=None))
    assert page.sections == ORDER
    assert "not confirmed yet" in page.texts["decision"]
    assert "test net value" not in page.texts["comparison"]
    assert [row[0] for row in page.rows["baselines"]] == ["way", "nearest", "few shot"]
    assert "once finalists are confirmed" in page.texts["checks"]
    assert "once finalists are confirmed" in page.texts["slices"]
    assert "Let the sweep come to its end" in page.texts["next"]


def test_a_confirmation_of_an_earlier_leader_confirms_nothing(study: StoredStudy) -> None:
    assert study.best is not None
    page = page_of(with_notes(study, confirmation=confirmation(study.best.trial.id, leader="99")))
    assert "not confirmed yet" in page.texts["decision"]
    assert "confirm net value" not in page.texts["comparison"]


def test_a_study_without_notes_still_has_its_page(study: StoredStudy) -> None:
    bare = with_notes(study, goal=None, audit=None, baselines=None, base_loss=None, confirmation=None)
    page = page_of(bare)
    assert page.sections == [name for name in ORDER if name not in ("goal", "data")]
    assert "have not been tried yet" in page.texts["baselines"]
    nothing = page_of(with_notes(bare, baselines=()))
    assert "None was tried" in nothing.texts["baselines"]


def test_the_comparison_holds_the_recipes_and_scores_of_winner_and_defaults(study: StoredStudy) -> None:
    assert study.best is not None
    other = next(one for one in study.standings[1:] if one.values and one != study.best)
    page = page_of(confirmed(study, other.trial.id))
    heading, *found = page.rows["comparison"]
    assert heading[1] == f"best (trial {other.trial.id})"
    rows = {row[0]: row[1:] for row in found}
    assert rows["batch size"] == [str(other.trial.recipe.batch_size), str(PLAN.defaults.batch_size)]
    assert rows["validation loss"][0] == f"{other.loss:.4f}"
    assert rows["confirm net value"] == ["0.8200 ± 0.1000", "0.5000 ± 0.1000"]
    assert rows["test net value"] == ["0.8000 ± 0.1000", "0.5500 ± 0.1000"]
    assert rows["test loss"] == ["2", "2.5"]


def test_what_matters_is_said_beside_the_figure(study: StoredStudy) -> None:
    assert "Before any training the model's validation loss is 4.250." in page_of(study).texts["effects"]


def swept(folder: Path, scheduler: Scheduler | None = None, **space: object) -> StoredStudy:
    storage = InMemoryStorage()
    plan = {"space": Space.from_mapping(space), "trials": 6}
    run_study(open_study(storage, scheduler, **plan), synthetic_engine(folder))
    return read_study(storage, PLAN.name)


def test_lists_and_claims_are_values_like_others(tmp_path: Path) -> None:
    space = {
        "target_modules": {"choices": ["all-linear", ["q_proj", "v_proj"]]},
        "rslora": {"choices": [True, False]},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    }
    page = page_of(swept(tmp_path, **space))
    values = {row[0]: row[1] for row in page.rows["searched"]}
    assert values["target modules"] == "all-linear, [q_proj,v_proj]"
    assert values["rsLoRA"] == "True, False"
    heading, *rows = page.rows["trials"]
    assert {row[heading.index("rsLoRA")] for row in rows} <= {"True", "False"}


def test_one_parameter_has_no_pairs(tmp_path: Path) -> None:
    page = page_of(swept(tmp_path, learning_rate={"low": 1e-4, "high": 1e-2, "log": True}))
    assert "Only learning rate varied" in page.texts["effects"]
    assert "Fewer than two parameters varied" in page.texts["pairs"]


def test_trials_of_searched_length_are_compared_at_their_own_ends(tmp_path: Path) -> None:
    study = swept(tmp_path, Full(), epochs={"low": 0.5, "high": 2.0})
    page = page_of(study)
    assert "at the end of its own epochs" in page.texts["curves"]
    heading, *rows = page.rows["trials"]
    assert [row[0] for row in rows] == [str(place) for place in range(1, 7)]
    losses = [float(row[heading.index("last loss")]) for row in rows]
    assert losses == sorted(losses)


def test_it_says_where_rungs_are_judged_on_fewer_rows(study: StoredStudy) -> None:
    assert "validation rows" not in page_of(study).texts["curves"]
    fewer = page_of(replace(study, judged_on=(16, 24, None)))
    assert "on 16, 24, all validation rows" in fewer.texts["curves"]


def test_what_an_earlier_winner_left_is_not_offered(study: StoredStudy) -> None:
    assert study.best is not None
    best = study.best.trial.id
    handed = Handed(trial=best, leader=best, best="best.yaml", adapter=None, look="ui", next="train it")
    assert "train it" in page_of(with_notes(study, handed=handed)).texts["next"]
    stale = with_notes(study, handed=replace(handed, leader="99"))
    assert "train it" not in page_of(stale).texts["next"]


def test_it_needs_nothing_from_elsewhere(study: StoredStudy) -> None:
    assert all(link.startswith("#") for link in page_of(study).links)


def test_texts_are_shown_and_not_run(study: StoredStudy) -> None:
    hostile = "</script><script>alert(1)</script>![seen](x.png)|`\n\n# Heading"
    asked = Asked(
        purpose=hostile,
        overrides=(f"data.path={hostile}",),
        data=hostile,
        rows={"train": 1},
        sampler=hostile,
        scheduler=hostile,
        config=hostile,
        git_commit=None,
    )
    assert study.best is not None
    leader = study.best.trial.id
    handed = Handed(trial=leader, leader=leader, best=hostile, adapter=hostile, look=hostile, next=hostile)
    found = confirmation(
        leader,
        baseline=compared(hostile, 0.5, 0.1),
        verdicts=[check(hostile, 0.5, 0.1, passed=False)],
        objective=hostile,
        unit=hostile,
        slices=(
            Slice(column=hostile, value=hostile, difference=compared("", 0.5, 0.1).difference, worse=True),
        ),
    )
    odd_ways = tuple(replace(one, name=hostile, description=hostile) for one in found.baselines)
    goal = goal_of(replace(BUSINESS, goal=hostile, currency=hostile))
    audited = replace(
        AUDITED, findings=tuple(replace(one, mend=hostile, bound=hostile) for one in AUDITED.findings)
    )
    first, *others = study.standings
    odd = replace(
        first, trial=replace(first.trial, recipe=replace(first.trial.recipe, target_modules=hostile))
    )
    broken = [one if one == study.best else replace(one, reason=hostile, state="failed") for one in others]
    given = replace(
        study,
        name=hostile,
        base=hostile,
        standings=(odd, *broken),
        notes=replace(
            study.notes,
            asked=asked,
            goal=goal,
            audit=audited,
            baselines=odd_ways,
            confirmation=replace(found, baselines=odd_ways),
            handed=handed,
        ),
    )
    effects = effects_of(given.standings, given.space, seed=0)
    html = render(given, effects)
    plain = render(study, effects_of(study.standings, study.space, seed=0))
    assert html.count("alert(1)") > 30
    assert html.count("<script") == plain.count("<script")
    Page(html)
    # The run's description in MLflow, by a reader that lets HTML through.
    described = MarkdownIt("commonmark").enable("table").render(as_markdown(given, effects))
    assert described.count("alert(1)") > 5
    assert re.findall(r"<(?:script|img|h1|code>.*</code>)", described) == ["<code>report.html</code>"]
    cells = [len(re.findall("<td", row)) for row in described.split("<tr>")[1:]]
    assert {count for count in cells if count} == {3}


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_a_sweep_that_has_just_begun_has_a_report(jobs: int, tmp_path: Path) -> None:
    storage = InMemoryStorage()
    study = open_study(storage)
    engine = synthetic_engine(tmp_path)

    class Some:
        left = jobs

        def next(self, capacity: Capacity) -> object:
            self.left -= 1
            return study.next(capacity) if self.left >= 0 else Done()

        def cancelled(self) -> frozenset[str]:
            return frozenset()

    for event in engine.run(Some()):  # type: ignore[arg-type]
        study.record(event)
    page = page_of(read_study(storage, PLAN.name))
    assert "No trial has come to its end yet." in page.texts["decision"]
    assert len(page.rows["trials"]) == 1 + jobs


def test_it_is_written_whole_in_place_of_an_earlier_one(study: StoredStudy, tmp_path: Path) -> None:
    effects = effects_of(study.standings, study.space, seed=0)
    (tmp_path / "report.html").write_text("old")
    path = write_report(study, effects, tmp_path)
    assert re.match("<!doctype html>", path.read_text("utf-8"))
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
