"""The figures of the outcomes table draw its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from sweep.analysis.axes import Axis
from sweep.reporting.curves import curves_figure
from sweep.reporting.parallel import parallel_figure

nan = np.nan
AXES = [
    Axis(name="learning_rate", scale="log", low=1e-5, high=1e-2),
    Axis(name="batch_size", scale="ordered", choices=(4, 8, 16)),
    Axis(name="weight_decay", scale="linear", low=0.0, high=0.1),
    Axis(name="schedule", scale="categorical", choices=("wsd", "cosine")),
]


def table_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """trial, state, place, examples_seen, loss_8, loss_24, loss_72."""
    columns = ["trial", "state", "place", "examples_seen", "loss_8", "loss_24", "loss_72"]
    table = pd.DataFrame(rows, columns=columns).astype({"place": "Int64"})
    losses = table[["loss_8", "loss_24", "loss_72"]].astype(float)
    table[losses.columns] = losses
    count = len(table)
    return table.assign(
        rung=table["examples_seen"],
        loss=losses.ffill(axis=1)["loss_72"],
        reason=[f"ended <{state}>" for state in table["state"]],
        seconds=1.0,
        tokens=1,
        peak_bytes=1,
        learning_rate=np.geomspace(1e-4, 1e-3, count),
        batch_size=([4, 8, 16] * count)[:count],
        weight_decay=np.linspace(0.0, 0.05, count),
        schedule=(["cosine", "wsd"] * count)[:count],
    )


TABLE = table_of(
    [
        (0, "complete", 2, 72, 3.0, 2.5, 2.2),
        (1, "complete", 1, 72, 2.9, 2.4, 2.0),
        (2, "complete", 3, 72, 3.1, 2.6, 2.3),
        (3, "pruned", 6, 8, 3.3, nan, nan),
        (4, "pruned", 5, 24, 3.2, 2.9, nan),
        (5, "diverged", 7, 8, 3.4, nan, nan),
        (6, "diverged", None, 0, nan, nan, nan),
        (7, "paused", 4, 24, 3.1, 2.7, nan),
    ]
)
EXPLODED = pd.concat(
    [TABLE, table_of([(8, "pruned", 8, 8, 50.0, nan, nan), (9, "diverged", 9, 8, 90.0, nan, nan)])],
    ignore_index=True,
)


def traces(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def points(trace: Any) -> list[tuple[Any, Any]]:
    return [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if x is not None and not np.isnan(x)]


def test_a_line_passes_through_the_losses_of_each_trial() -> None:
    drawn = traces(curves_figure(TABLE))
    assert points(drawn["best: trial 1, 2.000"]) == [(8, 2.9), (24, 2.4), (72, 2.0)]
    assert points(drawn["defaults: trial 0, 2.200"]) == [(8, 3.0), (24, 2.5), (72, 2.2)]
    assert points(drawn["ran to the end (1)"]) == [(8, 3.1), (24, 2.6), (72, 2.3)]
    assert points(drawn["stopped early (2)"]) == [(8, 3.3), (8, 3.2), (24, 2.9)]
    assert points(drawn["unfinished (1)"]) == [(8, 3.1), (24, 2.7)]


def test_trials_of_a_group_are_apart_and_end_in_a_dot() -> None:
    stopped = traces(curves_figure(TABLE))["stopped early (2)"]
    assert list(stopped.marker.size) == [6, 0, 0, 6, 0]
    assert [x is None or np.isnan(x) for x in stopped.x] == [False, True, False, False, True]


def test_a_cross_marks_where_a_trial_diverged_and_the_left_edge_stands_for_no_loss() -> None:
    figure = curves_figure(TABLE)
    crosses = traces(figure)["diverged (2)"]
    (last, lost), (loss, _) = crosses.x, crosses.y
    assert (last, loss) == (8, 3.4)
    assert 10 ** figure.layout.xaxis.range[0] < lost < 8
    np.testing.assert_allclose(figure.layout.xaxis.tickvals, [lost, 8, 24, 72])
    assert list(figure.layout.xaxis.ticktext) == ["no loss", "8", "24", "72"]


def test_pointing_at_a_point_tells_the_trial_its_values_and_at_the_end_the_reason() -> None:
    texts = traces(curves_figure(TABLE))["best: trial 1, 2.000"].text
    assert texts[0].split("<br>") == [
        "<b>trial 1</b>",
        "loss 2.9000 after 8 examples",
        "learning rate 1.39e-4",
        "batch size 8",
        "weight decay 7.14e-3",
        "schedule wsd",
    ]
    assert texts[2].split("<br>")[-1] == "ended &lt;complete&gt;"


def test_an_exploded_loss_is_marked_at_the_upper_edge_and_told_in_a_note() -> None:
    usual, figure = curves_figure(TABLE), curves_figure(EXPLODED)
    assert not usual.layout.annotations
    assert figure.layout.yaxis.range == usual.layout.yaxis.range
    (note,) = figure.layout.annotations
    assert note.text == "▲ 2 losses above 3.484, up to 90"
    (edge,) = [trace for trace in figure.data if trace.marker.symbol == "triangle-up"]
    assert list(edge.x) == [8, 8]
    assert 3.4 < edge.y[0] < figure.layout.yaxis.range[1]
    assert "loss 50.0000" in edge.text[0]
    assert max(traces(figure)["diverged (3)"].y) < figure.layout.yaxis.range[1]


def test_the_defaults_are_seen_where_they_are_the_best() -> None:
    drawn = traces(curves_figure(TABLE.iloc[:1].assign(place=1)))
    assert set(drawn) == {"best: trial 0, 2.200", "defaults: trial 0, 2.200"}


def test_many_trials_are_few_traces() -> None:
    table = pd.concat([TABLE] * 16, ignore_index=True).assign(trial=range(128), place=range(1, 129))
    assert len(curves_figure(table).data) <= 8


def test_rungs_too_close_to_label_give_way_to_those_that_more_trials_reached() -> None:
    table = TABLE.rename(columns={"loss_24": "loss_71"})
    table.loc[table["examples_seen"] == 24, "examples_seen"] = 71
    figure = curves_figure(table)
    assert list(figure.layout.xaxis.ticktext) == ["no loss", "8", "71"]


def test_folds_stand_side_by_side_and_a_broken_trial_at_its_last_one() -> None:
    names = {f"loss_{examples}": f"loss_{fold}" for fold, examples in enumerate((8, 24, 72), start=1)}
    rungs = {0: 0, 8: 1, 24: 2, 72: 3}
    # What counts is a mean, which lies at no fold.
    table = TABLE.rename(columns=names).assign(rung=TABLE["rung"].map(rungs), loss=2.75)
    table["loss"] = table["loss"].where(TABLE["loss"].notna())
    figure = curves_figure(table, folds=3)
    drawn = traces(figure)
    assert points(drawn["best: trial 1, 2.750"]) == [(1, 2.9), (2, 2.4), (3, 2.0)]
    assert "loss 2.4000 on fold 2 of 3" in drawn["best: trial 1, 2.750"].text[1]
    assert points(drawn["diverged (2)"])[0] == (1, 3.4)
    assert (figure.layout.xaxis.type, figure.layout.xaxis.title.text) == ("linear", "fold, of 3")
    assert list(figure.layout.xaxis.ticktext) == ["no loss", "1", "2", "3"]
    left, right = figure.layout.xaxis.range
    assert left < figure.layout.xaxis.tickvals[0] < 1 < 3 < right
    label = parallel_figure(table, AXES, folds=3).data[0].dimensions[-2].label
    assert label.replace("<br>", " ") == "loss on fold 1 of 3"


def test_each_line_of_the_parallel_figure_is_a_trial_with_a_loss() -> None:
    (lines,) = parallel_figure(TABLE, AXES).data
    drawn = {dimension.label.replace("<br>", " "): dimension for dimension in lines.dimensions}
    ran = TABLE[TABLE["loss"].notna()]
    assert list(drawn) == [
        "learning rate",
        "batch size",
        "weight decay",
        "schedule",
        "loss after 8 examples",
        "place",
    ]
    np.testing.assert_allclose(drawn["learning rate"].values, np.log10(ran["learning_rate"]))
    assert list(drawn["learning rate"].ticktext) == ["1e-5", "0.01", "3e-5", "1e-4", "3e-4", "1e-3", "3e-3"]
    np.testing.assert_allclose(drawn["learning rate"].range, [-5, -2])
    assert list(drawn["batch size"].values) == [0, 1, 2, 0, 1, 2, 1]
    assert list(drawn["batch size"].ticktext) == ["4", "8", "16"]
    np.testing.assert_allclose(drawn["weight decay"].values, ran["weight_decay"])
    assert list(drawn["schedule"].values) == [1, 0, 1, 0, 1, 0, 0]
    assert list(drawn["schedule"].ticktext) == ["wsd", "cosine"]
    np.testing.assert_allclose(drawn["loss after 8 examples"].values, ran["loss_8"])
    assert list(drawn["place"].values) == ran["place"].tolist() == list(lines.line.color)
    assert list(drawn["place"].range) == [7, 1]


def test_an_exploded_loss_stands_at_the_end_of_its_axis() -> None:
    (lines,) = parallel_figure(EXPLODED, []).data
    loss = lines.dimensions[0]
    edge = dict(zip(loss.ticktext, loss.tickvals, strict=True))["higher"]
    assert list(loss.values)[:7] == [3.0, 2.9, 3.1, 3.3, 3.2, 3.4, 3.1]
    assert list(loss.values)[7:] == [edge, edge]
    assert 3.4 < edge < 4


def test_a_value_that_is_no_choice_has_its_own_tick() -> None:
    table = TABLE.assign(schedule="linear", batch_size=12, weight_decay=0.3)
    (lines,) = parallel_figure(table, AXES).data
    batch, decay, schedule = lines.dimensions[1:4]
    assert (list(batch.ticktext), set(batch.values)) == (["4", "8", "12", "16"], {2})
    assert (list(schedule.ticktext), set(schedule.values)) == (["wsd", "cosine", "linear"], {2})
    assert list(decay.range) == [0.0, 0.3]


def test_many_dimensions_have_slanted_labels() -> None:
    assert parallel_figure(TABLE, AXES).data[0].labelangle == 0
    assert parallel_figure(TABLE, AXES * 3).data[0].labelangle == -30


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        EXPLODED,
        TABLE.iloc[:0],
        TABLE.iloc[:0].drop(columns=["loss_8", "loss_24", "loss_72"]),
        TABLE.iloc[:1],
        TABLE.iloc[3:4],
        TABLE.iloc[5:6],
        TABLE.iloc[6:7],
        TABLE.drop(columns=["loss_24", "loss_72"]).assign(examples_seen=8, loss=TABLE["loss_8"]),
    ],
    ids=["usual", "exploded", "empty", "no rungs", "one", "one stopped", "one diverged", "no loss", "a rung"],
)
def test_any_table_gives_pages_that_load_nothing(table: pd.DataFrame, tmp_path: Any) -> None:
    for figure in (curves_figure(table), parallel_figure(table, AXES)):
        figure.write_html(tmp_path / "figure.html", include_plotlyjs=True)
        assert "<script src=" not in (tmp_path / "figure.html").read_text(encoding="utf-8")
