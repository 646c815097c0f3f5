"""What is told and drawn of a front is what its trials are worth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

from sweep.analysis.effects import effects_of
from sweep.analysis.front import front_of
from sweep.analysis.trades import aims_of, trades
from sweep.reporting.html import render
from sweep.reporting.live import leading, standings_table
from sweep.reporting.markdown import as_markdown
from sweep.reporting.summary import comparison_of, verdict_of
from sweep.reporting.trades import front_headings, front_rows, trade_sentences, trades_figure
from sweep.search.standings import Standings
from sweep.search.stored import StoredStudy, read_study
from sweep.types import Aimed, Standing
from tests.analysis.test_front import aimed
from tests.reporting.confirmed import confirmation
from tests.search.test_aims import Ranked, several
from tests.studies import PLAN, open_study, run_study, synthetic_engine

NAMES = ["lora_rank"]


def priced(number: int, net: float, latency: float, chrf: float | None = None) -> Standing:
    aims = [
        Aimed("net_value", net, "<EUR> per ticket", True),
        Aimed("p95_latency", latency, "ms", False),
        *([] if chrf is None else [Aimed("quality", chrf, "from 0 to 1", True)]),
    ]
    return replace(aimed(number, 0.0), aims=tuple(aims))


TWO = [
    priced(0, 0.2, 900),
    priced(1, 1.0, 1000),
    priced(2, 0.9, 300),
    priced(3, 0.1, 200),
    priced(4, 0.5, 250),
]
THREE = [
    priced(0, 0.2, 900, 0.1),
    priced(1, 1.0, 500, 0.2),
    priced(2, 0.5, 250, 0.9),
    priced(3, 0.7, 300, 0.8),
]


def test_two_aims_are_one_panel_with_the_front_as_a_line() -> None:
    table = trades(TWO, NAMES)
    line, *points = trades_figure(table, aims_of(TWO)).data
    assert list(zip(line.x, line.y, strict=True)) == [(0.1, 200), (0.5, 250), (0.9, 300), (1.0, 1000)]
    drawn = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in points}
    assert drawn == {
        "beaten in every aim, or equalled": [(0.2, 900)],
        "the front": [(1.0, 1000), (0.5, 250), (0.1, 200)],
        "the knee": [(0.9, 300)],
        "defaults": [(0.2, 900)],
    }
    (knee,) = (trace for trace in points if trace.name == "the knee")
    told = [
        "<b>trial 2</b>, knee",
        "net value 0.9 &lt;EUR&gt; per ticket",
        "p95 latency 300 ms",
        "LoRA rank 16",
    ]
    assert knee.text == ("<br>".join(told),)


def test_three_aims_are_a_row_of_pairs_without_a_line() -> None:
    table = trades(THREE, NAMES)
    figure = trades_figure(table, aims_of(THREE))
    assert {trace.mode for trace in figure.data} == {"markers"}
    panels = sorted({(trace.xaxis, trace.yaxis) for trace in figure.data})
    assert panels == [("x", "y"), ("x2", "y2"), ("x3", "y3")]
    pairs = [("net_value", "p95_latency"), ("net_value", "quality"), ("p95_latency", "quality")]
    for panel, (across, up) in zip(panels, pairs, strict=True):
        there = [
            trace for trace in figure.data if (trace.xaxis, trace.yaxis) == panel and trace.name != "defaults"
        ]
        points = [point for trace in there for point in zip(trace.x, trace.y, strict=True)]
        assert sorted(points) == sorted(zip(table[f"aim/{across}"], table[f"aim/{up}"], strict=True))
    assert sum(trace.showlegend is not False for trace in figure.data) == 4
    assert figure.layout.xaxis.title.text == "net value, &lt;EUR&gt; per ticket (→ better)"
    assert figure.layout.yaxis.title.text == "p95 latency, ms (← better)"


def test_the_sentence_names_the_knee_and_what_it_gives_up() -> None:
    (told,) = trade_sentences(TWO, None)
    assert told.startswith("4 trials are beaten by no other in every aim. Of these trial 2 leads, the knee: ")
    lacks = "0.1 <EUR> per ticket of net value (trial 1 is best) and 100 ms of p95 latency (trial 3 is best)"
    assert told.endswith(f"It gives up {lacks}.")
    (three,) = trade_sentences(THREE, None)
    assert front_of(THREE)[0].trial.id == "3"
    assert "0.3 <EUR> per ticket of net value (trial 1 is best)" in three
    (alone,) = trade_sentences([priced(0, 1.0, 100), priced(1, 0.5, 200)], None)
    assert alone.startswith("Trial 0 is as good as every other in each aim, or better, so it leads.")
    assert alone.endswith("None has a better net value or p95 latency.")
    assert trade_sentences([aimed(0)], None) == []


def test_it_says_whether_confirmation_chose_the_knee() -> None:
    chosen = confirmation("2", leader="2")
    assert trade_sentences(TWO, chosen)[1] == (
        f"The knee was chosen among the finalists too, by its {chosen.objective} on confirm rows."
    )
    other = trade_sentences(TWO, confirmation("1", leader="2"))[1]
    assert other.startswith("The knee leads the search; among finalists trial 1 won, by its ")


def test_the_table_tells_each_difference_to_the_knee_and_ends_with_the_defaults() -> None:
    assert front_headings(TWO, NAMES) == [
        "trial",
        "net value, <EUR> per ticket ↑",
        "p95 latency, ms ↓",
        "LoRA rank",
        "",
    ]
    assert front_rows(TWO, NAMES) == [
        ["2", "0.9", "300", "16", "the knee"],
        ["1", "1 (+0.1)", "1,000 (+700)", "16", ""],
        ["4", "0.5 (-0.4)", "250 (-50)", "16", ""],
        ["3", "0.1 (-0.8)", "200 (-100)", "16", ""],
        ["0", "0.2 (-0.7)", "900 (+600)", "16", "defaults, not on the front"],
    ]
    assert front_rows([aimed(0)], NAMES) == []


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    storage, made = InMemoryStorage(), synthetic_engine(tmp_path_factory.mktemp("trades"))
    run_study(several(storage, trials=24), Ranked(inputs=made._inputs, noise=0.0))
    return read_study(storage, PLAN.name)


def test_the_page_has_a_section_of_trade_offs_and_marks_the_knee(study: StoredStudy) -> None:
    effects = effects_of(study.standings, study.space, seed=0)
    page = render(study, effects)
    section = page[page.index('<section id="trades">') : page.index('<section id="comparison">')]
    assert study.best
    assert f"trial {study.best.trial.id} leads, the knee" in section
    assert section.count("<tr") - 1 == len(front_rows(study.standings, study.names))
    assert 'href="#trades"' in page
    rows = page[page.index('<table id="trials">') :]
    (best,) = re.findall(r'<tr class="best">(.*?)</tr>', rows, re.DOTALL)
    assert re.findall(r">(\S+)</td>", best)[1] == study.best.trial.id
    assert effects.trusted
    assert effects.readings[-1] in page
    assert "of the validation loss, which a search with several aims does not follow" in effects.readings[-1]
    assert effects.advice is None


def test_other_places_say_that_the_knee_leads(study: StoredStudy) -> None:
    best = study.best
    assert best
    gain, rank = (f"{one.value:.4g}" for one in best.aims)
    assert leading(best) == f"knee gain {gain}, rank {rank}"
    assert (
        verdict_of(study).headline
        == f"Trial {best.trial.id} leads as the knee of several aims, not confirmed yet."
    )
    defaults = study.standings[0].aims
    told = comparison_of(study)
    assert ("validation gain", gain, f"{defaults[0].value:.4g}") in told
    assert ("validation rank", rank, f"{defaults[1].value:.4g}") in told
    assert " ".join(trade_sentences(study.standings, None)) in as_markdown(
        study, effects_of(study.standings, study.space, seed=0)
    )
    table = standings_table(Standings(study.standings), study.names, {})
    headings = [str(column.header) for column in table.columns]
    assert headings[-3:] == ["gain", "rank", "state"]
    assert list(table.columns[-2].cells) == [f"{one.aims[1].value:.4g}" for one in study.standings]


def test_a_search_with_one_aim_says_nothing_of_trades(tmp_path: Path) -> None:
    storage = InMemoryStorage()
    run_study(open_study(storage), synthetic_engine(tmp_path))
    study = read_study(storage, PLAN.name)
    page = render(study, effects_of(study.standings, study.space, seed=0))
    assert "Trade-offs" not in page
    assert "several aims" not in page
    assert leading(study.standings[0]).startswith("best ")
