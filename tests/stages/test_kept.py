"""Jobs outside the search run once, whatever was interrupted between."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.stages.kept import drop_states, run_kept
from sweep.types import Asking, Job, Probe, Prompt, Report, Trial, View
from tests.recipes import DEFAULTS
from tests.stages.finished import Watched, inline, synthetic

RIGHT = Prompt("confirm-1", (("user", "question 1"),))


def job(name: str, *, start: int = 0, stop: int = 16, checkpoint: str | None = None) -> Job:
    return Job(
        id=name,
        attempt=0,
        trial=Trial(id=name, number=None, recipe=DEFAULTS, seed=1, base="none"),
        start=start,
        stop=stop,
        horizon=16,
        checkpoint=checkpoint,
        train=View("train"),
        evaluation=View("confirm", 4),
        asked=Asking((RIGHT,), 8),
        probe=Probe(View("train", 3), View("validation", 3), 2),
    )


JOBS = [job(name) for name in "abcd"]


def run(
    folder: Path, jobs: list[Job], key: str = "study", **watched: object
) -> tuple[dict[str, Report], list[str]]:
    """The reports, and which jobs reached the engine."""
    engine = Watched(synthetic(folder), **watched)  # type: ignore[arg-type]
    found = run_kept(jobs, inline(engine), path=folder / "kept.json", key=[key])
    return found, [job.id for job in engine.jobs]


def test_a_second_start_runs_nothing_and_reads_the_same_reports(tmp_path: Path) -> None:
    first, ran = run(tmp_path, JOBS)
    assert ran == ["a", "b", "c", "d"]
    assert all(report.rows and report.replies and report.probed for report in first.values())
    assert run(tmp_path, JOBS) == (first, [])
    assert run(tmp_path, JOBS[2:]) == ({name: first[name] for name in "cd"}, [])


@pytest.mark.parametrize("reports", [0, 1, 3])
def test_an_interruption_costs_the_job_that_was_out(reports: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, JOBS, reports=reports)
    found, ran = run(tmp_path, JOBS)
    assert ran == [job.id for job in JOBS[reports:]]
    assert list(found) == [job.id for job in JOBS]
    whole, _ = run(tmp_path / "whole", JOBS)
    assert {name: report.rows for name, report in found.items()} == {
        name: report.rows for name, report in whole.items()
    }


def test_a_job_that_failed_is_tried_again_and_hides_no_other(tmp_path: Path) -> None:
    found, _ = run(tmp_path, JOBS, bad={"b": "failed"})
    assert {name: report.state for name, report in found.items()} == {
        "a": "reached",
        "b": "failed",
        "c": "reached",
        "d": "reached",
    }
    found, ran = run(tmp_path, JOBS)
    assert ran == ["b"]
    assert found["b"].state == "reached"


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_job_whose_state_is_lost_is_trained_again(how: str, tmp_path: Path) -> None:
    first, _ = run(tmp_path, JOBS)
    state = Path(first["c"].checkpoint or "")
    if how == "gone":
        shutil.rmtree(state)
    else:
        (state / "state.json").write_text("{}")
    again, ran = run(tmp_path, JOBS)
    assert ran == ["c"]
    assert state.is_dir()
    assert replace(again["c"], ended_ms=0) == replace(first["c"], ended_ms=0)


def test_a_job_whose_prompts_were_not_answered_is_run_again(tmp_path: Path) -> None:
    silent, _ = run(tmp_path, JOBS[:1], answers=False)
    assert (silent["a"].state, silent["a"].replies) == ("reached", ())
    found, ran = run(tmp_path, JOBS[:1])
    assert ran == ["a"]
    assert [reply.row for reply in found["a"].replies] == [RIGHT.row]


def test_a_score_needs_no_state_any_more(tmp_path: Path) -> None:
    trained, _ = run(tmp_path, JOBS[:1])
    checkpoint = trained["a"].checkpoint
    scoring = [job("a/scored", start=16, checkpoint=checkpoint)]
    first, _ = run(tmp_path, scoring)
    shutil.rmtree(checkpoint or "")
    assert run(tmp_path, scoring) == (first, [])


@pytest.mark.parametrize(
    "changed",
    [
        {"horizon": 32},
        {"evaluation": View("confirm", 5)},
        {"asked": Asking((RIGHT,), 9)},
        {"probe": None},
        {"trial": replace(JOBS[0].trial, seed=2)},
        {"trial": replace(JOBS[0].trial, recipe=replace(DEFAULTS, learning_rate=1e-3))},
    ],
)
def test_another_job_of_the_same_name_is_run(changed: dict[str, object], tmp_path: Path) -> None:
    run(tmp_path, JOBS[:1])
    assert run(tmp_path, [replace(JOBS[0], **changed)])[1] == ["a"]  # type: ignore[arg-type]


def test_what_jobs_depend_on_besides_keeps_them_apart(tmp_path: Path) -> None:
    run(tmp_path, JOBS[:1])
    assert run(tmp_path, JOBS[:1], key="another study")[1] == ["a"]
    assert run(tmp_path, JOBS[:1])[1] == [], "the first study's is still there"


def test_the_base_model_is_the_same_whatever_was_to_be_trained(tmp_path: Path) -> None:
    untrained = job("base", stop=0)
    run(tmp_path, [untrained])
    other = replace(untrained.trial, recipe=replace(DEFAULTS, lora_rank=4))
    assert run(tmp_path, [replace(untrained, trial=other, horizon=64)])[1] == []
    assert run(tmp_path, [replace(untrained, trial=replace(other, base="another"))])[1] == ["base"]


def test_a_file_that_can_not_be_read_costs_only_time(tmp_path: Path) -> None:
    run(tmp_path, JOBS[:1])
    (tmp_path / "kept.json").write_text('{"cut off')
    assert run(tmp_path, JOBS[:1])[1] == ["a"]


def test_states_that_nothing_goes_on_from_go_and_their_jobs_are_not_run_again(tmp_path: Path) -> None:
    first, _ = run(tmp_path, JOBS)
    drop_states(JOBS[:2], path=tmp_path / "kept.json", key=["study"])
    assert [Path(first[name].checkpoint or "").exists() for name in "abcd"] == [False, False, True, True]
    again, ran = run(tmp_path, JOBS)
    assert ran == []
    assert {name: report.rows for name, report in again.items()} == {
        name: report.rows for name, report in first.items()
    }


def test_a_state_that_is_found_broken_is_trained_again_at_another_start(tmp_path: Path) -> None:
    trained, _ = run(tmp_path, JOBS[:1])
    state = trained["a"].checkpoint or ""
    scoring = [job("a/scored", start=16, checkpoint=state)]
    (Path(state) / "state.json").write_text("half")
    found, _ = run(tmp_path, scoring)
    assert found["a/scored"].state == "broken"
    assert not Path(state).exists()
    _, ran = run(tmp_path, JOBS[:1])
    assert ran == ["a"]
    found, _ = run(tmp_path, scoring)
    assert found["a/scored"].state == "reached"


def test_a_state_that_only_its_worker_finds_broken_stays_and_the_reason_is_told(tmp_path: Path) -> None:
    trained, _ = run(tmp_path, JOBS[:1])
    state = trained["a"].checkpoint or ""
    scoring = [job("a/scored", start=16, checkpoint=state)]
    found, _ = run(tmp_path, scoring, bad={"a/scored": "broken"})
    assert found["a/scored"].state == "failed"
    assert "Here it is whole: `checkpoints` must be a place" in (found["a/scored"].error or "")
    assert run(tmp_path, JOBS[:1]) == (trained, [])
