"""The effects of a search in all: what they say must follow from the tables."""

from __future__ import annotations

import pandas as pd
import pytest

from sweep.analysis import effects as module
from sweep.analysis.effects import PAIRS_DRAWN, Effects, effects_of
from tests.studies import SPACE, open_study, run_study, synthetic_engine


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> Effects:
    study = run_study(open_study(trials=40), synthetic_engine(tmp_path_factory.mktemp("study")))
    return effects_of(study.standings, SPACE, seed=0)


def test_the_strongest_pairs_are_drawn_strongest_first(effects: Effects) -> None:
    drawn = [(surface.first.name, surface.second.name) for surface in effects.surfaces]
    strongest = effects.interactions.head(PAIRS_DRAWN)
    assert drawn == list(zip(strongest["first"], strongest["second"], strict=True))
    assert effects.interactions["share"].is_monotonic_decreasing


def test_the_closed_form_depends_most_on_the_learning_rate(effects: Effects) -> None:
    assert effects.r_squared is not None
    assert effects.r_squared > 0.5
    assert effects.importances["parameter"].iloc[0] == "learning_rate"
    assert effects.readings[0].startswith("Learning rate matters most")


def test_without_trials_nothing_is_said() -> None:
    effects = effects_of([], SPACE, seed=0)
    assert (effects.r_squared, effects.surfaces, effects.advice) == (None, (), None)
    assert effects.readings == ("Too few trials with different losses to tell how the parameters act.",)


def test_parameters_whose_intervals_meet_are_told_together() -> None:
    table = pd.DataFrame(
        {
            "parameter": ["learning_rate", "lora_rank", "batch_size"],
            "total": [0.5, 0.3, 0.1],
            "total_low": [0.2, 0.1, 0.0],
            "total_high": [0.8, 0.6, 0.2],
        }
    )
    told = module._leading(table)
    assert told.startswith("It is not certain")
    assert "learning rate 50% (20% to 80%), LoRA rank 30% (10% to 60%)" in told
    assert "batch size" not in told
    clear = module._leading(table.assign(total_low=[0.4, 0.1, 0.0]))
    assert clear.startswith("Learning rate matters most: 50% (40% to 80%) of the loss's variance")
