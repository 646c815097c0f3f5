from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.tracking.sweeps import Shop, Sweep, runs_of


def test_the_parent_shows_the_data_and_the_config(shop: Shop) -> None:
    sweep = Sweep(trials=())
    tracker = sweep.tracker(shop, "data")
    assert tracker.drain(60)
    (used,) = runs_of(shop, sweep)[0].inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("tickets", "f" * 36)
    assert json.loads(used.dataset.source) == {"uri": "data/tickets.jsonl"}
    assert json.loads(used.dataset.profile) == {"train": 80, "validation": 20}
    config = shop.client.download_artifacts(tracker.parent_run_id, "config.yaml", str(shop.folder))
    assert Path(config).read_text() == sweep.record.composed_config


def test_a_resumed_sweep_may_have_another_budget(shop: Shop) -> None:
    sweep = Sweep(trials=())
    first = sweep.tracker(shop, "budget")
    first.finish("FINISHED")
    larger = {"budget.trials": 9, "new": 1}
    second = sweep.tracker(shop, "budget", params=larger, composed_config="later: true\n")
    assert second.drain(60)
    parent, _ = runs_of(shop, sweep)
    assert second.parent_run_id == first.parent_run_id
    assert parent.info.status == "RUNNING"
    assert parent.data.params == {"budget.trials": "2", "objective": "validation_loss", "new": "1"}


def test_passwords_in_addresses_reach_no_run(shop: Shop) -> None:
    secret = "postgresql://me:hunter2@host/db"
    sweep = Sweep(trials=("0",))
    told = {"params": {"storage": secret}, "composed_config": f"storage: {secret}\n"}
    tracker = sweep.tracker(shop, "secrets", data_source=secret, **told)
    sweep.standings["0"] = replace(sweep.standings["0"], state="failed", reason=f"no {secret}")
    tracker.sync(list(sweep.standings.values()))
    assert tracker.drain(60)
    parent, nested = runs_of(shop, sweep)
    config = shop.client.download_artifacts(parent.info.run_id, "config.yaml", str(shop.folder))
    seen = f"{parent.to_dictionary()} {parent.inputs.to_dictionary()} {nested['0'].to_dictionary()}"
    assert "***@host" in seen
    kept = [file.read_text() for file in sweep.journal(shop).rglob("*") if file.is_file()]
    assert len(kept) == 3
    assert "hunter2" not in "".join([seen, Path(config).read_text(), *kept])
