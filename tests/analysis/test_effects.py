"""The effects of a search in all: what they say must follow from the tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sweep.analysis import effects as module
from sweep.analysis.effects import PAIRS_DRAWN, Effects, effects_of
from sweep.types import Report, Standing, Trial
from tests.recipes import DEFAULTS
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


def table(**leads: float) -> pd.DataFrame:
    count = len(leads)
    return pd.DataFrame(
        {
            "parameter": list(leads),
            "total": [0.5, 0.3, 0.1][:count],
            "total_low": [0.2, 0.1, 0.0][:count],
            "total_high": [0.8, 0.6, 0.2][:count],
            "leads": list(leads.values()),
        }
    )


def test_a_parameter_that_leads_in_nine_of_ten_draws_matters_most() -> None:
    told = module._leading(table(learning_rate=0.95, lora_rank=0.05, batch_size=0.0))
    assert told.startswith("Learning rate matters most: 50% (20% to 80%) of the variance")


def test_parameters_that_may_lead_are_told_together() -> None:
    told = module._leading(table(learning_rate=0.7, lora_rank=0.3, batch_size=0.0))
    assert told.startswith("It is not certain")
    assert "learning rate 50% (20% to 80%), LoRA rank 30% (10% to 60%)." in told
    assert "batch size" not in told


def test_a_single_parameter_has_no_rival() -> None:
    assert module._leading(table(learning_rate=1.0)).startswith("Only learning rate varied")


def test_of_noise_nothing_is_said() -> None:
    rng = np.random.default_rng(0)
    standings = [noise(number, rng) for number in range(16)]
    effects = effects_of(standings, SPACE, seed=0)
    assert not effects.trusted
    assert effects.readings[0].startswith("The trials do not tell how the parameters act")
    assert effects.advice is None


def noise(number: int, rng: np.random.Generator) -> Standing:
    recipe = replace(
        DEFAULTS,
        learning_rate=float(np.exp(rng.uniform(np.log(3e-5), np.log(3e-3)))),
        batch_size=int(rng.choice([4, 8, 16, 32])),
        lora_rank=int(rng.choice([4, 8, 16, 32, 64])),
    )
    report = Report(
        job="", trial=str(number), attempt=0, examples_seen=8, state="reached", validation_loss=rng.normal()
    )
    trial = Trial(id=str(number), number=number, recipe=recipe, seed=0, base="")
    return Standing(trial=trial, state="complete", reports=(report,))
