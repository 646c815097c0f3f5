from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sweep.errors import ConfigError
from sweep.tracking.said import REASON_LENGTH
from tests.tracking.sweeps import CURVE, RUNGS, Shop, Sweep, assert_stored_once, history, rung, runs_of, step


def test_a_sweep_is_one_parent_with_a_nested_run_per_trial(shop: Shop) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "shape")
    sweep.complete(tracker)
    tracker.finish("FINISHED")
    assert_stored_once(shop, sweep)
    parent, nested = runs_of(shop, sweep)
    assert parent.info.run_id == tracker.parent_run_id
    assert parent.info.run_name == "support_bot"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"budget.trials": "2", "objective": "validation_loss"}
    assert parent.data.tags["mlflow.source.git.commit"] == "0123abc"
    run = nested["1"]
    assert run.info.run_name == "trial 1 · lr 3e-4 · r16 · b2"
    assert run.data.params["target_modules"] == "q_proj, v_proj"
    assert run.data.params["learning_rate"] == "0.0003"
    assert run.info.end_time == rung("1", 12).ended_ms
    metrics = run.data.metrics
    assert (metrics["peak_mib"], metrics["tokens_per_second"]) == (3.0, 25.0)
    assert (metrics["total_tokens"], metrics["accuracy_1"]) == (150.0, 0.5)


def test_a_name_with_both_quotes_is_found_again(shop: Shop) -> None:
    sweep = Sweep(trials=(), name="""it's a "sweep" 100%""")
    first = sweep.tracker(shop, "quotes").parent_run_id
    assert sweep.tracker(shop, "quotes").parent_run_id == first
    other = replace(sweep, name="it's")
    assert other.tracker(shop, "quotes").parent_run_id != first


def test_sync_alone_restores_every_rung(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    reports = tuple(rung("0", examples) for examples in RUNGS)
    sweep.standings["0"] = replace(sweep.standings["0"], state="complete", reports=reports)
    for _ in range(2):
        tracker = sweep.tracker(shop, "sync")
        tracker.sync(list(sweep.standings.values()))
        assert tracker.drain(60)
        tracker.close()
    run = runs_of(shop, sweep)[1]["0"]
    assert history(shop, run, "validation_loss") == [(r.examples_seen, r.validation_loss) for r in reports]
    assert run.info.start_time == reports[0].ended_ms - 2000


def test_the_very_same_points_sent_again_add_nothing_to_the_store(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    reports = tuple(rung("0", examples) for examples in RUNGS)
    sweep.standings["0"] = replace(sweep.standings["0"], state="complete", reports=reports)
    for _ in range(2):
        tracker = sweep.tracker(shop, "again")
        tracker.sync(list(sweep.standings.values()))
        assert tracker.drain(60)
        tracker.close()
        (sweep.journal(shop) / "sent.json").unlink()
    run = runs_of(shop, sweep)[1]["0"]
    for key in run.data.metrics:
        assert len(history(shop, run, key)) == (1 if key == "final_validation_loss" else len(RUNGS))


def test_values_that_are_not_finite_are_counted_not_stored(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    tracker = sweep.tracker(shop, "nonfinite")
    tracker.log(step("0", 2))
    tracker.log(step("0", 4, train_loss=math.nan, gradient_norm=math.inf))
    bad = rung("0", 4, validation_loss=math.nan)
    sweep.standings["0"] = replace(
        sweep.standings["0"], state="diverged", reports=(bad,), reason="loss is NaN, lower learning_rate"
    )
    tracker.log(bad)
    for _ in range(2):
        assert tracker.drain(60)
        tracker.close()
        tracker = later = sweep.tracker(shop, "nonfinite")
        later.log(step("0", 4, train_loss=math.nan, gradient_norm=math.inf))
        later.sync(list(sweep.standings.values()))
    assert tracker.drain(60)
    run = runs_of(shop, sweep)[1]["0"]
    assert [point for point, _ in history(shop, run, "train_loss")] == [2]
    assert "validation_loss" not in run.data.metrics
    assert run.data.tags["sweep.nonfinite_points"] == "3"
    assert run.data.tags["sweep.reason"] == "loss is NaN, lower learning_rate"
    assert run.info.status == "FAILED"


def test_requests_stay_below_the_limits_of_mlflow(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    many = {f"key_{index}": index for index in range(250)}
    tracker = sweep.tracker(shop, "limits", params=many)
    for examples in range(1, 1501):
        tracker.log(step("0", examples))
    sweep.standings["0"] = replace(sweep.standings["0"], state="failed", reason="x" * 20_000)
    tracker.log(rung("0", 1500, state="failed", error="x" * 20_000))
    assert tracker.drain(60)
    parent, nested = runs_of(shop, sweep)
    assert len(parent.data.params) == 250
    for key in CURVE:
        assert len(history(shop, nested["0"], key)) == 1500
    assert nested["0"].data.tags["sweep.reason"] == "x" * REASON_LENGTH


def test_steps_are_sent_together(shop: Shop) -> None:
    sweep = Sweep(trials=("0",))
    tracker = sweep.tracker(shop, "together")
    sweep.advance("0", tracker)
    assert runs_of(shop, sweep)[1] == {}
    tracker.log(step("0", 3))
    assert runs_of(shop, sweep)[1] == {}
    assert tracker.drain(60)
    assert [examples for examples, _ in history(shop, runs_of(shop, sweep)[1]["0"], "train_loss")] == [2, 3]


def test_finish_leaves_no_run_running(shop: Shop) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "finish")
    sweep.advance("0", tracker)
    sweep.advance("0", tracker)
    sweep.advance("1", tracker)
    tracker.sync([sweep.standings["1"]])
    assert tracker.drain(60)
    assert [run.info.status for run in runs_of(shop, sweep)[1].values()].count("RUNNING") == 1
    tracker.finish("KILLED")
    parent, nested = runs_of(shop, sweep)
    assert parent.info.status == "KILLED"
    assert {name: run.info.status for name, run in nested.items()} == {"0": "SCHEDULED", "1": "KILLED"}
    again = sweep.tracker(shop, "finish")
    sweep.crash()
    sweep.complete(again)
    again.finish("FINISHED")
    assert runs_of(shop, sweep)[0].info.status == "FINISHED"
    assert_stored_once(shop, sweep)


def test_a_deleted_experiment_is_an_error_at_the_door(shop: Shop) -> None:
    sweep = Sweep()
    sweep.tracker(shop, "gone").close()
    shop.client.delete_experiment(shop.client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(ConfigError, match=r"tracking\.experiment=gone was deleted"):
        sweep.tracker(shop, "gone")


@pytest.mark.parametrize("twin", ["trial", "sweep"])
def test_an_empty_run_that_a_late_request_began_beside_another_is_deleted(shop: Shop, twin: str) -> None:
    sweep = Sweep()
    tracker = sweep.tracker(shop, "twins")
    sweep.advance("0", tracker)
    assert tracker.drain(60)
    parent, nested = runs_of(shop, sweep)
    told = nested["0"] if twin == "trial" else parent
    shop.client.create_run(told.info.experiment_id, start_time=1, tags=told.data.tags)
    tracker.close()
    sweep.crash()
    again = sweep.tracker(shop, "twins")
    sweep.complete(again)
    assert runs_of(shop, sweep)[0].info.run_id == parent.info.run_id
    assert_stored_once(shop, sweep)
