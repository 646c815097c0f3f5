from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.tracking.sweeps import Shop, Sweep, history, runs_of


def test_the_module_loads_without_mlflow() -> None:
    probe = "import sys, sweep.tracking.mlflow, sweep.tracking.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_artifacts_of_the_sweep_replace_earlier_ones(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sweep = Sweep(trials=())
    file = tmp_path_factory.mktemp("files") / "notes.txt"
    file.write_text("notes")
    for value in (1, 2):
        tracker = sweep.tracker(shop, "artifacts")
        tracker.log_table("trials", pd.DataFrame({"trial": [0, 1], "loss": [value, math.nan]}))
        tracker.log_figure("curve", go.Figure(go.Scatter(y=[1, value])))
        tracker.log_text("report.md", f"# {value}")
        tracker.log_file(file, "extra")
        tracker.log_metrics({"confirm_loss": 1.5, "bad": math.nan, "accuracy@1": 0.5})
        assert tracker.drain(60)
        tracker.close()
    fetched = Path(shop.client.download_artifacts(tracker.parent_run_id, "", str(shop.folder)))
    assert json.loads((fetched / "tables/trials.json").read_text()) == {
        "columns": ["trial", "loss"],
        "data": [[0, 2.0], [1, None]],
    }
    page = (fetched / "plots/curve.html").read_text()
    assert len(page) > 1_000_000
    assert 'src="http' not in page
    assert (fetched / "report.md").read_text() == "# 2"
    assert (fetched / "extra/notes.txt").read_text() == "notes"
    parent, _ = runs_of(shop, sweep)
    assert history(shop, parent, "confirm_loss") == [(0, 1.5)]
    assert parent.data.metrics == {"confirm_loss": 1.5, "accuracy_1": 0.5}
    shown = json.loads(parent.data.tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "tables/trials.json", "type": "table"}]


def test_the_ui_command_shows_this_store(shop: Shop) -> None:
    tracker = Sweep(trials=()).tracker(shop, "ui")
    assert tracker.ui_command() == f"mlflow ui --backend-store-uri {shop.uri}"
