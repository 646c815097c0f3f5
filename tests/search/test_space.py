"""What a search space accepts, refuses and hands to Optuna."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweep.errors import ConfigError, SpaceError
from sweep.search.ranges import validate_recipe
from sweep.search.space import Space
from sweep.types import Recipe
from tests.recipes import DEFAULTS

EVERY_FORM: dict[str, dict[str, object]] = {
    "learning_rate": {"low": 3e-5, "high": 3e-3, "log": True},
    "weight_decay": {"low": 0.0, "high": 0.3, "step": 0.1},
    "batch_size": {"choices": [32, 4, 16, 8]},
    "lora_rank": {"low": 2, "high": 64, "log": True},
    "lora_alpha": {"low": 8, "high": 64, "int": True, "step": 8},
    "lora_dropout": {"low": 0, "high": 0.2, "when": "lora_rank >= 16"},
    "target_modules": {"choices": ["all-linear", ["q_proj", "v_proj"]]},
    "rslora": {"choices": [False, True]},
    "schedule": {"choices": ["linear", "cosine"]},
}


def draw(space: Space, codes: dict[str, Any], defaults: Recipe = DEFAULTS) -> Recipe:
    return space.drawn(lambda name, distribution: codes[name], defaults)


def random_draw(space: Space, seed: int) -> tuple[Recipe, dict[str, Any]]:
    """A recipe, and what Optuna stores of it."""
    sampler, study = optuna.samplers.RandomSampler(seed=seed), optuna.create_study()
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    codes: dict[str, Any] = {}

    def value(name: str, distribution: BaseDistribution) -> Any:
        codes[name] = sampler.sample_independent(study, trial, name, distribution)
        return codes[name]

    return space.drawn(value, DEFAULTS), codes


@pytest.mark.parametrize(
    ("field", "form", "distribution"),
    [
        (
            "learning_rate",
            {"low": "1e-4", "high": "1e-2", "log": True},
            FloatDistribution(1e-4, 1e-2, log=True),
        ),
        ("weight_decay", {"low": 0, "high": 0.3}, FloatDistribution(0.0, 0.3)),
        ("weight_decay", {"low": 0.1, "high": 0.3, "step": 0.1}, FloatDistribution(0.1, 0.3, step=0.1)),
        ("lora_rank", {"low": 4, "high": 64}, IntDistribution(4, 64)),
        ("lora_rank", {"low": 4.0, "high": 64.0, "log": True}, IntDistribution(4, 64, log=True)),
        ("lora_rank", {"low": 4, "high": 64, "step": 4}, IntDistribution(4, 64, step=4)),
        ("epochs", {"low": 1, "high": 4, "int": True}, IntDistribution(1, 4)),
        ("batch_size", {"choices": [4, 8, 16]}, IntDistribution(0, 2)),
        ("batch_size", {"choices": [8]}, IntDistribution(0, 0)),
        ("schedule", {"choices": ["wsd", "cosine"]}, CategoricalDistribution(["wsd", "cosine"])),
        ("rslora", {"choices": [False, True]}, CategoricalDistribution([False, True])),
        (
            "target_modules",
            {"choices": ["all-linear", ["q_proj", "v_proj"]]},
            CategoricalDistribution(["all-linear", "q_proj,v_proj"]),
        ),
    ],
)
def test_each_form_has_its_distribution(field: str, form: dict[str, object], distribution: object) -> None:
    assert Space.from_mapping({field: form}).distributions() == {field: distribution}


def test_numeric_choices_are_ordered_whatever_order_they_are_written_in() -> None:
    (parameter,) = Space.from_mapping({"batch_size": {"choices": [32, 4, 16]}}).parameters
    assert parameter.choices == (4, 16, 32)
    assert draw(Space((parameter,)), {"batch_size": 2}).batch_size == 32


def test_values_have_the_types_of_the_recipe() -> None:
    kinds = {"learning_rate": float, "lora_alpha": float, "lora_rank": int, "rslora": bool}
    space = Space.from_mapping(EVERY_FORM)
    for seed in range(20):
        recipe, _ = random_draw(space, seed)
        validate_recipe(recipe)
        assert {field: type(getattr(recipe, field)) for field in kinds} == kinds
        assert recipe.target_modules in ("all-linear", ("q_proj", "v_proj"))


def test_what_is_encoded_decodes_to_the_same_recipe() -> None:
    space = Space.from_mapping(EVERY_FORM)
    for seed in range(50):
        recipe, codes = random_draw(space, seed)
        assert space.encode(recipe) == pytest.approx(codes, abs=1e-12)
        assert draw(space, codes) == recipe


def test_optuna_takes_the_recipes_own_values_as_trial_0() -> None:
    space = Space.from_mapping(EVERY_FORM)
    study = optuna.create_study()
    study.enqueue_trial(space.encode(DEFAULTS))
    trial = study.ask({**space.distributions()})
    assert draw(space, trial.params) == DEFAULTS


def test_the_spelled_out_form_reads_back_as_the_same_space() -> None:
    space = Space.from_mapping(EVERY_FORM)
    assert Space.from_mapping(space.to_mapping()) == space


def test_a_space_pickles() -> None:
    space = Space.from_mapping(EVERY_FORM)
    assert pickle.loads(pickle.dumps(space)) == space


class TestConditions:
    DROPOUT = Space.from_mapping(
        {
            "lora_dropout": {"low": 0.0, "high": 0.2, "when": "lora_rank >= 16 and not rslora == True"},
            "lora_rank": {"choices": [8, 16, 32]},
        }
    )

    def test_parameters_follow_those_that_they_depend_on(self) -> None:
        assert [parameter.name for parameter in self.DROPOUT.parameters] == ["lora_rank", "lora_dropout"]

    def test_an_active_parameter_is_searched(self) -> None:
        assert draw(self.DROPOUT, {"lora_rank": 1, "lora_dropout": 0.1}).lora_dropout == 0.1

    def test_an_inactive_parameter_takes_the_recipes_value_and_is_not_stored(self) -> None:
        recipe = draw(self.DROPOUT, {"lora_rank": 0}, replace(DEFAULTS, lora_dropout=0.05))
        assert (recipe.lora_rank, recipe.lora_dropout) == (8, 0.05)
        assert self.DROPOUT.encode(recipe) == {"lora_rank": 0}

    def test_a_condition_looks_at_fields_that_are_not_searched(self) -> None:
        assert "lora_dropout" not in self.DROPOUT.encode(replace(DEFAULTS, rslora=True))

    @pytest.mark.parametrize(
        ("when", "holds"),
        [
            ("schedule == 'linear'", True),
            ("schedule != 'linear'", False),
            ("8 < lora_rank <= 16", True),
            ("lora_rank < 8 or 16 == lora_rank", True),
            ("not (lora_rank > 8 and epochs >= 1)", False),
            ("target_modules == 'all-linear'", True),
        ],
    )
    def test_conditions_mean_what_they_say(self, when: str, holds: bool) -> None:
        space = Space.from_mapping({"weight_decay": {"low": 0.0, "high": 0.1, "when": when}})
        assert ("weight_decay" in space.encode(DEFAULTS)) == holds

    @pytest.mark.parametrize(
        ("when", "told"),
        [
            ("__import__('os').system('true')", "only comparisons of a recipe field with a constant"),
            ("lora_rank.real > 1", "one must be a recipe field, the other a constant"),
            ("lora_rank > 8 + 8", "one must be a recipe field"),
            ("lora_rank > batch_size", "one must be a recipe field"),
            ("[x for x in (1,)]", "only comparisons"),
            ("(lambda: 1)() == 1", "one must be a recipe field"),
            ("lora_rank", "only comparisons"),
            ("rank >= 16", "Did you mean `lora_rank`?"),
            ("lora_rank in 16", "only ==, !=, <, <=, >, >="),
            ("lora_rank >= '16'", "a number must stand there"),
            ("lora_rank == True", "a number must stand there"),
            ("rslora == 1", "True or False must stand there"),
            ("schedule == 3", "a string in quotes must stand there"),
            ("schedule > 'linear'", "have no order; compare it with == or !="),
            ("lora_rank >=", "is no condition"),
            ("not " * 60 + "lora_rank > 1", "at most 200 are allowed"),
        ],
    )
    def test_anything_else_is_refused(self, when: str, told: str) -> None:
        with pytest.raises(SpaceError, match=r"^space\.weight_decay\.when: ") as error:
            Space.from_mapping({"weight_decay": {"low": 0.0, "high": 0.1, "when": when}})
        assert told in str(error.value)

    @pytest.mark.parametrize("first", ["weight_decay > 0.1", "lora_dropout > 0.1"])
    def test_conditions_in_a_circle_are_refused(self, first: str) -> None:
        node: dict[str, object] = {
            "lora_dropout": {"low": 0.0, "high": 0.2, "when": first},
            "weight_decay": {"low": 0.0, "high": 0.2, "when": "lora_dropout > 0.1"},
        }
        with pytest.raises(
            SpaceError, match="the conditions of lora_dropout, weight_decay wait for each other"
        ):
            Space.from_mapping(node)


@pytest.mark.parametrize(
    ("field", "form", "told"),
    [
        ("lerning_rate", {"low": 1, "high": 2}, "Did you mean `space.learning_rate`?"),
        ("learning_rate", 1e-4, "~space.learning_rate"),
        ("learning_rate", {}, "either `low` and `high` or `choices` must be given, got neither"),
        ("learning_rate", {"low": 1e-4}, "space.learning_rate.high: a number must stand here, got nothing"),
        ("learning_rate", {"low": 1e-4, "high": 1, "choices": [1]}, "either `low` and `high` or `choices`"),
        ("learning_rate", {"low": 1e-4, "high": 1, "lag": True}, ".lag: no such key; there are low, high"),
        ("learning_rate", {"low": 1e-4, "high": 1, "lag": True}, "Did you mean `log`?"),
        ("learning_rate", {"choices": [1e-4], "log": True}, "no such key; there are choices, when"),
        ("learning_rate", {"low": 1e-2, "high": 1e-4}, "`low < high` must hold, got low=0.01, high=0.0001"),
        ("learning_rate", {"low": 0, "high": 1e-2, "log": True}, "`low > 0` must hold for a log scale"),
        ("learning_rate", {"low": 0, "high": 1e-2}, "space.learning_rate.low: must be above 0, got 0"),
        ("learning_rate", {"low": "fast", "high": 1e-2}, "a number must stand here, got fast"),
        ("learning_rate", {"low": 1e-4, "high": float("inf")}, ".high: a number must stand here, got inf"),
        ("learning_rate", {"low": 1e-4, "high": 1e-2, "log": "yes"}, ".log: true or false must stand here"),
        ("learning_rate", {"low": 1e-4, "high": 1, "log": True, "step": 0.1}, "`log` and `step` exclude"),
        ("weight_decay", {"low": 0, "high": 0.25, "step": 0.1}, "miss high=0.25. Set `high` to 0.2"),
        ("weight_decay", {"low": 0, "high": 0.2, "step": -0.1}, "space.weight_decay.step: must be above 0"),
        ("weight_decay", {"choices": []}, "space.weight_decay.choices: a list of at least one value"),
        ("weight_decay", {"choices": 0.1}, "a list of at least one value must stand here, got 0.1"),
        ("weight_decay", {"choices": [0.1, -1]}, "space.weight_decay.choices[1]: must be at least 0, got -1"),
        ("lora_rank", {"low": 4.5, "high": 64}, ".low: a whole number must stand here, got 4.5"),
        ("lora_rank", {"choices": [4, True]}, ".choices[1]: a number must stand here, got True"),
        ("lora_rank", {"choices": [0, 4]}, "must be at least 1, got 0"),
        ("lora_rank", {"choices": [4, 8, 4]}, "4 stands there twice. Remove one"),
        ("lora_dropout", {"low": 0, "high": 1}, "space.lora_dropout.high: must be at least 0 and below 1"),
        ("schedule", {"choices": ["linear", "step"]}, "one of constant, linear, cosine, wsd, got step"),
        ("schedule", {"low": 0, "high": 1}, "the values of schedule have no order. Write {choices: [...]}"),
        ("rslora", {"choices": [0, 1]}, "true or false must stand here, got 0"),
        ("target_modules", {"choices": ["all-linear", []]}, "must be all-linear or a list of layer names"),
        ("target_modules", {"choices": [["a"], ["a"]]}, "[a] stands there twice"),
        ("lora_dropout", {"choices": [0.0], "when": 16}, "a condition in quotes must stand here, got 16"),
    ],
)
def test_a_contradiction_is_named_with_its_path(field: str, form: object, told: str) -> None:
    with pytest.raises(SpaceError) as error:
        Space.from_mapping({field: form})
    assert told in str(error.value)
    assert str(error.value).startswith(f"space.{field}")


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(SpaceError, match="nothing is searched"):
        Space.from_mapping({})


@pytest.mark.parametrize(
    ("form", "value", "told"),
    [
        ({"low": 0.1, "high": 0.3}, 0.05, "0.1 to 0.3"),
        ({"low": 0.1, "high": 0.3, "step": 0.1}, 0.25, "0.1 to 0.3 in steps of 0.1"),
        ({"choices": [0.1, 0.3]}, 0.2, "one of 0.1, 0.3"),
    ],
)
def test_a_recipe_outside_the_space_is_named_with_the_ways_out(
    form: dict[str, object], value: float, told: str
) -> None:
    space = Space.from_mapping({"weight_decay": form})
    with pytest.raises(SpaceError, match=r"^recipe\.weight_decay=") as error:
        space.check(replace(DEFAULTS, weight_decay=value))
    for part in ("space.weight_decay", told, "widen", "~space.weight_decay"):
        assert part in str(error.value)


def test_decimal_steps_contain_what_people_write() -> None:
    space = Space.from_mapping({"weight_decay": {"low": 0.0, "high": 0.3, "step": 0.1}})
    assert space.encode(replace(DEFAULTS, weight_decay=0.3)) == {"weight_decay": 0.3}


@given(low=st.integers(0, 999), step=st.integers(1, 999), steps=st.integers(1, 200), places=st.integers(0, 6))
def test_each_value_of_a_decimal_grid_is_drawn_as_people_write_it(
    low: int, step: int, steps: int, places: int
) -> None:
    def written(units: int) -> float:
        return float(f"{units}e-{places}")

    form = {"low": written(low), "high": written(low + steps * step), "step": written(step)}
    (parameter,) = Space.from_mapping({"weight_decay": form}).parameters
    for k in range(steps + 1):
        value = parameter.decode(form["low"] + k * form["step"])
        assert value == written(low + k * step)
        assert parameter.decode(parameter.encode(value)) == value


def test_what_optuna_draws_from_a_stepped_space_lies_inside() -> None:
    space = Space.from_mapping({"weight_decay": {"low": 0.0, "high": 0.5, "step": 0.1}})
    drawn = [random_draw(space, seed)[0] for seed in range(50)]
    assert {space.encode(recipe)["weight_decay"] for recipe in drawn} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"learning_rate": 0.0}, "recipe.learning_rate: must be above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "recipe.learning_rate: must be above 0, got nan"),
        ({"batch_size": 0}, "recipe.batch_size: must be at least 1, got 0"),
        ({"weight_decay": -0.1}, "recipe.weight_decay: must be at least 0"),
        ({"lora_dropout": 1.0}, "recipe.lora_dropout: must be at least 0 and below 1"),
        ({"warmup_fraction": 1.5}, "recipe.warmup_fraction: must be between 0 and 1"),
        ({"target_modules": ()}, "recipe.target_modules: must be all-linear or a list"),
    ],
)
def test_a_recipe_out_of_range_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate_recipe(replace(DEFAULTS, **values))
    assert told in str(error.value)
