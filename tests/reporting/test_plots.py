import numpy as np
import pandas as pd
import pytest

from sweep.analysis.axes import Axis
from sweep.reporting.plots import importance_figure, interaction_figure, surface_figure

IMPORTANCES = pd.DataFrame(
    {
        "parameter": ["learning_rate", "batch_size", "lora_rank"],
        "main": [0.6, 0.1, 0.05],
        "total": [0.8, 0.3, 0.06],
        "low": [0.5, 0.05, 0.0],
        "high": [0.7, 0.2, 0.1],
        "total_low": [0.7, 0.2, 0.01],
        "total_high": [0.9, 0.4, 0.12],
        "main_top_half": [0.3, 0.2, 0.1],
        "spearman": [-0.4, 0.1, 0.0],
    }
)
INTERACTIONS = pd.DataFrame(
    {
        "first": ["learning_rate", "learning_rate", "lora_rank"],
        "second": ["batch_size", "lora_rank", "batch_size"],
        "share": [0.2, 0.03, 0.0],
        "low": [0.1, 0.0, 0.0],
        "high": [0.3, 0.08, 0.01],
    }
)
RATE = Axis(name="learning_rate", scale="log", low=1e-4, high=1e-2)
BATCH = Axis(name="batch_size", scale="ordered", choices=(4, 8, 16))
SCHEDULE = Axis(name="schedule", scale="categorical", choices=("wsd", "cosine"))


def surface(first: Axis, second: Axis) -> pd.DataFrame:
    rows = [(x, y) for x in first.values for y in second.values]
    table = pd.DataFrame(rows, columns=[first.name, second.name])
    return table.assign(loss=np.linspace(1.0, 2.0, len(rows)), best=second.values[1])


def test_the_bars_are_the_tables_numbers():
    figure = importance_figure(IMPORTANCES)
    for bar, column, low, high in zip(
        figure.data, ("main", "total"), ("low", "total_low"), ("high", "total_high"), strict=True
    ):
        np.testing.assert_allclose(bar.x, IMPORTANCES[column])
        np.testing.assert_allclose(bar.x + bar.error_x.array, IMPORTANCES[high])
        np.testing.assert_allclose(bar.x - bar.error_x.arrayminus, IMPORTANCES[low])
        assert list(bar.y) == ["learning rate", "batch size", "LoRA rank"]


def test_the_matrix_has_mains_on_its_diagonal_and_pairs_below():
    figure = interaction_figure(INTERACTIONS, IMPORTANCES)
    nan = np.nan
    np.testing.assert_array_equal(figure.data[0].z, [[0.6, nan, nan], [0.2, 0.1, nan], [0.03, 0.0, 0.05]])
    notes = {(note.x, note.y): note.text for note in figure.layout.annotations}
    assert len(notes) == 6
    assert "20%" in notes["learning rate", "batch size"]
    assert "10% to 30%" in notes["learning rate", "batch size"]


def test_the_contours_are_the_surfaces_losses_on_a_log_axis():
    table = surface(BATCH, RATE)
    contour, ridge = surface_figure(table, BATCH, RATE).data
    np.testing.assert_allclose(contour.z.T.ravel(), table["loss"])
    np.testing.assert_allclose(contour.y, RATE.values)
    assert list(contour.x) == [0, 1, 2]
    np.testing.assert_allclose(ridge.y, [RATE.values[1]] * 3)
    layout = surface_figure(table, BATCH, RATE).layout
    assert layout.yaxis.type == "log"
    assert list(layout.yaxis.ticktext) == ["1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "5e-3", "0.01"]
    assert list(layout.xaxis.ticktext) == ["4", "8", "16"]
    assert layout.xaxis.title.text == "batch size"


def test_trials_stand_at_their_last_rung_and_diverged_ones_apart():
    trials = pd.DataFrame(
        {
            "trial": [0, 0, 1],
            "state": ["complete", "complete", "diverged"],
            "examples_seen": [100, 300, 50],
            "loss": [2.0, 1.5, np.nan],
            "batch_size": [8, 8, 16],
            "learning_rate": [1e-3, 1e-3, 9e-3],
        }
    )
    _, ran, diverged, _ = surface_figure(surface(BATCH, RATE), BATCH, RATE, trials=trials).data
    assert (list(ran.x), list(ran.y), list(ran.text)) == ([1], [1e-3], ["trial 0: 1.500"])
    assert (list(diverged.x), list(diverged.y), list(diverged.text)) == ([2], [9e-3], ["trial 1"])


def test_nothing_is_interpolated_between_categories():
    cells, ridge = surface_figure(surface(SCHEDULE, RATE), SCHEDULE, RATE).data
    assert cells.type == "heatmap"
    assert ridge.mode == "markers"


@pytest.mark.parametrize(
    "figure",
    [
        importance_figure(IMPORTANCES),
        interaction_figure(INTERACTIONS, IMPORTANCES),
        surface_figure(surface(BATCH, RATE), BATCH, RATE),
        importance_figure(IMPORTANCES.iloc[:0]),
        interaction_figure(INTERACTIONS.iloc[:0], IMPORTANCES.iloc[:0]),
    ],
    ids=["importance", "interaction", "surface", "no importance", "no interaction"],
)
def test_a_figure_is_one_page_that_loads_nothing(figure, tmp_path):
    path = tmp_path / "figure.html"
    figure.write_html(path, include_plotlyjs=True)
    assert "<script src=" not in path.read_text(encoding="utf-8")
