"""The report holds every trial and claim of its study, is one file, and runs nothing that it was given."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from sweep.analysis.effects import effects_of
from sweep.analysis.outcomes import outcomes
from sweep.evaluation.compare import Confirmation, Difference
from sweep.reporting.html import render, write_report
from sweep.search.notes import Asked, Handed
from sweep.search.scheduler import Full, Scheduler
from sweep.search.space import Space
from sweep.search.stored import StoredStudy, read_study
from sweep.types import Capacity, Done, Score, Verdict
from tests.studies import PLAN, open_study, run_study, synthetic_engine

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
    study.note("base_loss", 4.25)
    study.note("confirmation", asdict(confirmation(study.best.trial.id)))
    return read_study(storage, PLAN.name)


def confirmation(trial: str, *, passed: bool = True) -> Confirmation:
    return Confirmation(
        trial=trial,
        best=Score(value=2.0, standard_error=0.1, examples=64, metrics={"perplexity": 7.4}),
        defaults=Score(value=2.5, standard_error=0.1, examples=64, metrics={"perplexity": 12.2}),
        difference=Difference(value=-0.5, low=-0.6, high=-0.4, p_value=0.001, rows=64, clusters=64),
        verdict=Verdict(
            check="beats_defaults", passed=passed, severity="warn", value=-0.5, limit=0, message="so it is"
        ),
    )


def page_of(study: StoredStudy) -> Page:
    return Page(render(study, effects_of(study.standings, study.space, seed=study.seed)))


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


def test_the_summary_claims_what_the_confirmation_found(study: StoredStudy) -> None:
    summary = page_of(study).texts["summary"]
    assert f"Trial {study.best.trial.id} beats the defaults." in summary
    assert (
        "On 64 rows that the search never saw its loss is 2.000 nats per token, the defaults' 2.500"
        in summary
    )
    assert "-0.500 (95%: -0.600 to -0.400)" in summary
    assert "Before any training the model's validation loss is 4.250." in summary
    doubtful = replace(study.notes, confirmation=confirmation(study.best.trial.id, passed=False))
    summary = page_of(replace(study, notes=doubtful)).texts["summary"]
    assert "No evidence that trial" in summary
    assert "So it is." in summary


def test_the_summary_says_first_that_the_leader_fails_its_guards(study: StoredStudy) -> None:
    assert study.best is not None
    failed = Verdict(
        check="verbatim", passed=False, severity="error", value=0.5, limit=0.2, message="so it is"
    )
    unfit = tuple(replace(s, verdicts=(failed,), violation=0.6) for s in study.standings)
    summary = page_of(replace(study, standings=unfit)).texts["summary"]
    assert f"No trial may win: even trial {study.best.trial.id} fails guard verbatim." in summary
    assert "So it is." in summary
    assert "beats the defaults" not in summary


def test_a_confirmation_of_an_earlier_winner_confirms_nothing(study: StoredStudy) -> None:
    stale = replace(study, notes=replace(study.notes, confirmation=confirmation("99")))
    page = page_of(stale)
    assert "not confirmed yet" in page.texts["summary"]
    assert "confirm loss" not in page.texts["comparison"]


def test_the_comparison_holds_both_recipes_and_scores(study: StoredStudy) -> None:
    rows = {row[0]: row[1:] for row in page_of(study).rows["comparison"]}
    assert study.best is not None
    assert rows["batch size"] == [str(study.best.trial.recipe.batch_size), str(PLAN.defaults.batch_size)]
    assert rows["validation loss"][0] == f"{study.best.loss:.4f}"
    assert rows["confirm loss"] == ["2.0000 ± 0.1000", "2.5000 ± 0.1000"]
    assert rows["confirm perplexity"] == ["7.4", "12.2"]


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
    assert "Only learning rate varied" in page.texts["summary"]
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
    handed = Handed(trial=study.best.trial.id, best="best.yaml", adapter=None, look="ui", next="train it")
    now = replace(study, notes=replace(study.notes, handed=handed))
    assert "train it" in page_of(now).texts["summary"]
    stale = replace(study, notes=replace(study.notes, handed=replace(handed, trial="99")))
    assert "train it" not in page_of(stale).texts["summary"]


def test_it_needs_nothing_from_elsewhere(study: StoredStudy) -> None:
    assert all(link.startswith("#") for link in page_of(study).links)


def test_texts_are_shown_and_not_run(study: StoredStudy) -> None:
    hostile = "</script><script>alert(1)</script>"
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
    handed = Handed(trial="0", best=hostile, adapter=hostile, look=hostile, next=hostile)
    first, *others = study.standings
    odd = replace(
        first, trial=replace(first.trial, recipe=replace(first.trial.recipe, target_modules=hostile))
    )
    given = replace(
        study,
        name=hostile,
        base=hostile,
        standings=(odd, *(replace(s, reason=hostile, state="failed") for s in others)),
        notes=replace(study.notes, asked=asked, handed=handed),
    )
    html = render(given, effects_of(given.standings, given.space, seed=0))
    plain = render(study, effects_of(study.standings, study.space, seed=0))
    assert "alert(1)" in html
    assert html.count("<script") == plain.count("<script")
    Page(html)


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
    assert "No trial has come to its end yet." in page.texts["summary"]
    assert len(page.rows["trials"]) == 1 + jobs


def test_it_is_written_whole_in_place_of_an_earlier_one(study: StoredStudy, tmp_path: Path) -> None:
    effects = effects_of(study.standings, study.space, seed=0)
    (tmp_path / "report.html").write_text("old")
    path = write_report(study, effects, tmp_path)
    assert re.match("<!doctype html>", path.read_text("utf-8"))
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
