"""What `compose` makes of files and overrides, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from sweep.config import Config, compose, describe
from sweep.data.baselines import Canned
from sweep.errors import ConfigError, DataError, SpaceError
from sweep.evaluation.business import OneOff, Success
from sweep.evaluation.metrics import HardRows
from sweep.evaluation.objective import Loss
from sweep.evaluation.scorers import Chrf, Facts
from sweep.grammar import spell_out
from sweep.paths import packaged_root
from sweep.redaction import HIDDEN, hidden
from sweep.schema import build
from sweep.search.space import Space
from sweep.targets import Target, read_target
from sweep.usage import usage
from tests.evaluation.tickets import example as ticket

Compose = Callable[..., Config]
Write = Callable[[str, str], None]

# For an experiment of its own.
QUICK = ("engine=synthetic", "objective=loss")
SMOKE = ["+experiment=smoke", "engine=synthetic"]


@pytest.fixture
def smoke(tmp_path: Path) -> Compose:
    """Compose the smoke experiment with overrides, in a working directory of its own."""
    return lambda *overrides: compose([*SMOKE, *overrides], working_directory=tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Put a file into that working directory."""

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    return write


def experiment(body: str) -> str:
    return f"# @package _global_\n# For a test.\nname: mine\n{body}"


def test_a_password_in_the_checkpoints_url_is_refused_and_not_shown(smoke: Compose) -> None:
    for url in ("s3://me:hunter2@bucket/mine", '"s3://bucket/mine?key=hunter2"'):
        with pytest.raises(ConfigError, match="no password and no options") as refused:
            smoke(f"checkpoints={url}")
        assert "hunter2" not in str(refused.value)


class TestComposition:
    def test_a_users_file_wins_over_the_packaged_one(self, smoke: Compose, write: Write) -> None:
        packaged = (packaged_root() / "conf/recipe/lora.yaml").read_text("utf-8")
        write("conf/recipe/lora.yaml", packaged.replace("lora_alpha: 32", "lora_alpha: 24"))
        assert smoke().recipe.lora_alpha == 24

    def test_a_users_space_is_found_in_sweeps(self, smoke: Compose, write: Write) -> None:
        write("sweeps/space/narrow.yaml", "lora_rank: choice(8, 16)\n")
        assert smoke("space=narrow").space == Space.from_mapping({"lora_rank": {"choices": [8, 16]}})

    def test_a_primary_file_of_another_project_is_left_alone(self, smoke: Compose, write: Write) -> None:
        write("conf/config.yaml", "defaults: [nothing]\n")
        assert smoke().experiment == "smoke"

    @pytest.mark.parametrize("order", [1, -1])
    def test_best_wins_over_the_experiment_in_any_order(
        self, order: int, tmp_path: Path, write: Write
    ) -> None:
        write("conf/experiment/mine.yaml", experiment("recipe: {weight_decay: 0.1}\n"))
        best = "# @package _global_\nrecipe: {weight_decay: 0.2}\nbest: {study: mine, trial: 7}\n"
        write("sweeps/best/found.yaml", best)
        overrides = ["+experiment=mine", "+best=found"][::order]
        config = compose([*overrides, *QUICK], working_directory=tmp_path)
        assert config.recipe.weight_decay == 0.2
        assert config.best == {"study": "mine", "trial": 7}

    def test_the_tracked_experiment_and_the_output_follow_the_name(self, smoke: Compose) -> None:
        config = smoke("name=other")
        assert config.tracking.experiment == "other"
        assert config.output == "runs/other"

    def test_what_is_composed_is_plain_and_can_be_read_back(self, smoke: Compose) -> None:
        config = smoke("budget.trials=3")
        assert yaml.safe_load(yaml.safe_dump(dict(config.composed)))["budget"]["trials"] == 3
        assert config.overrides == (*SMOKE, "budget.trials=3")

    def test_a_config_has_the_types_that_it_names(self, smoke: Compose) -> None:
        config = smoke()
        assert config.data.slice_columns == ("style", "channel", "customer_group")
        assert type(config.recipe.lora_alpha) is float
        assert isinstance(config.sampler.build(seed=0), optuna.samplers.TPESampler)

    @pytest.mark.parametrize(
        ("overrides", "told"),
        [
            ([], "name: no experiment is chosen. Write +experiment=NAME. There are: "),
            (["+experiment=smok"], "experiment=smok: no such file. There are: smoke, "),
            (["experiment=smoke"], "Write +experiment=smoke"),
            ([*SMOKE, "best=x"], "Write +best=x"),
            ([*SMOKE, "+best=smok"], "best=smok: no such file."),
            ([*SMOKE, "sampler=tpi"], "sampler=tpi: no such file. There are: tpe, "),
            ([*SMOKE, "space=null"], "space=null: the name of a file in space/ must stand here"),
            ([*SMOKE, "budget.trails=3"], "budget.trails: no such key. Did you mean `budget.trials`?"),
            ([*SMOKE, "~budget.trails"], "budget.trails: no such key. Did you mean `budget.trials`?"),
            ([*SMOKE, "+budgets.trials=3"], "budgets: no such key. Did you mean `budget`?"),
            ([*SMOKE, "~seed"], "seed: was removed, but is needed. Drop the override ~seed"),
            ([*SMOKE, "data=own"], "data.path: must be given. Write data.path=..."),
            ([*SMOKE, "output=${nope}"], "output: what it refers to can't be had: Interpolation key 'nope'"),
            ([*SMOKE, "output=${oc.env:SWEEP_ABSENT}"], "Environment variable 'SWEEP_ABSENT' not found"),
            ([*SMOKE, "foo"], "foo: can't be read: "),
            ([*SMOKE, "storage=a(b,c"], "storage=a(b,c: can't be read: "),
        ],
    )
    def test_what_does_not_compose_says_what_there_is(
        self, overrides: list[str], told: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError) as error:
            compose(overrides, working_directory=tmp_path)
        assert told in str(error.value)

    def test_a_defaults_list_that_names_no_file_says_what_there_is(
        self, tmp_path: Path, write: Write
    ) -> None:
        write("conf/experiment/mine.yaml", experiment("defaults: [{override /space: lorra}]\n"))
        with pytest.raises(ConfigError, match=r"^space=lorra: a defaults list names it.*There are: lora, "):
            compose(["+experiment=mine"], working_directory=tmp_path)

    def test_a_file_that_is_no_yaml_is_named(self, tmp_path: Path, write: Write) -> None:
        write("conf/experiment/mine.yaml", experiment("seed: [1\n"))
        with pytest.raises(ConfigError, match=r"conf/experiment/mine\.yaml, line 4: is no YAML: "):
            compose(["+experiment=mine"], working_directory=tmp_path)

    @pytest.mark.parametrize("flag", ["-m", "--multirun"])
    def test_multirun_is_refused_with_the_reason(self, flag: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match="here one run is the whole search") as error:
            smoke(flag)
        assert "space=lora" in str(error.value)

    @pytest.mark.parametrize(
        ("override", "cure"),
        [
            ("seed=1,2", "Give one; for a list, write seed=[a, b]"),
            ("seed=range(1,3)", "Give one"),
            ("recipe.lora_rank=8,16", "'space.lora_rank=choice(8,16)'"),
            ("space.lora_rank=8,16", "'space.lora_rank=choice(8,16)'"),
            ("recipe.weight_decay=interval(0,0.1)", "'space.weight_decay=interval(0,0.1)'"),
            ("model=hub,tiny_llama", "Give one"),
        ],
    )
    def test_several_values_for_one_key_are_refused(self, override: str, cure: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match="several values for one key are several runs") as error:
            smoke(override)
        assert cure in str(error.value)


class TestValues:
    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ("seed=x", "seed: a whole number must stand here, got 'x'"),
            ("seed=true", "seed: a whole number must stand here, got True"),
            ("seed=-1", "seed: must be at least 0; got -1"),
            ("name=a/b", "name: must be letters, digits"),
            ("name=..", "name: must be letters, digits"),
            ("name=1", "name: a text must stand here, got 1. Put it in quotes"),
            ("output=.", "output: must be a folder of its own, such as runs/mine; got '.'"),
            ("output=/", "output: must be a folder of its own"),
            ("output=''", "output: must be a folder of its own"),
            (
                "budget=3",
                "budget: no such file" if False else "budget: keys and values must stand here, got 3",
            ),
            ("budget.trials=0", "budget.trials: must be at least 1; got 0"),
            ("budget.trials=null", "budget.trials: a whole number must stand here, got None"),
            ("budget.minutes=0", "budget.minutes: must be above 0, or null for no limit"),
            (
                "budget.minutes=soon",
                "budget.minutes: one of these must stand here: a number, null; got 'soon'",
            ),
            ("evaluation.rows=0", "evaluation.rows: must be at least 1, or null for all"),
            ("data.max_tokens=8", "data.max_tokens: must be at least 16; got 8"),
            ("data.slice_columns=style", "data.slice_columns: a list must stand here, got 'style'"),
            ("data.slice_columns=[1]", "data.slice_columns[0]: a text must stand here, got 1"),
            ("~data.split.test", "data.split.test: missing. Add it, with a number"),
            ("recipe.rslora=1", "recipe.rslora: true or false must stand here, got 1"),
            ("recipe.schedule=linar", "recipe.schedule: must be one of linear, "),
            ("recipe.lora_alpha=.inf", "recipe.lora_alpha: a number must stand here"),
            ("recipe.lora_dropout=1", "recipe.lora_dropout: must be at least 0 and below 1, got 1.0"),
            ("++recipe.lora_ranks=1", "recipe.lora_ranks: no such key. Did you mean `recipe.lora_rank`?"),
            ("scheduler.eta=x", "scheduler.eta: a whole number must stand here, got 'x'"),
            ("~scheduler.eta", "scheduler.eta: missing; Asha needs it"),
            ("+scheduler.etta=3", "scheduler.etta: no such key. Did you mean `scheduler.eta`?"),
            ("~scheduler._target_", "scheduler: keys with a `_target_` must stand here"),
            ("sampler=gp", "sampler: GPSampler learns from trials that ran to the end, and Asha stops most"),
        ],
    )
    def test_an_unfit_value_is_named_with_its_path(self, override: str, told: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError) as error:
            smoke(override)
        assert told in str(error.value)

    def test_shares_that_are_not_one_are_refused(self, smoke: Compose) -> None:
        with pytest.raises(DataError, match=r"data\.split"):
            smoke("data.split.train=0.9")

    def test_a_number_that_yaml_reads_as_text_counts(self, tmp_path: Path, write: Write) -> None:
        write("conf/experiment/mine.yaml", experiment("recipe: {learning_rate: 1e-3}\n"))
        write("conf/experiment/text.yaml", experiment("recipe: {learning_rate: '1e-3'}\n"))
        for name in ("mine", "text"):
            config = compose([f"+experiment={name}", *QUICK], working_directory=tmp_path)
            assert config.recipe.learning_rate == 1e-3

    def test_a_gaussian_process_searches_with_full_runs(self, smoke: Compose) -> None:
        config = smoke("sampler=gp", "scheduler=full")
        assert config.sampler.cls is optuna.samplers.GPSampler


class TestSpace:
    @pytest.mark.parametrize(
        ("text", "form"),
        [
            ("interval(0, 0.3)", {"low": 0.0, "high": 0.3, "log": False, "int": False}),
            ("tag(log, interval(3e-5, 3e-3))", {"low": 3e-5, "high": 3e-3, "log": True, "int": False}),
            ("int(interval(2, 64))", {"low": 2, "high": 64, "log": False, "int": True}),
            ("tag(log, int(interval(2, 64)))", {"low": 2, "high": 64, "log": True, "int": True}),
            ("int(tag(log, interval(2, 64)))", {"low": 2, "high": 64, "log": True, "int": True}),
            ("range(1, 10, step=2)", {"low": 1, "high": 9, "step": 2, "int": True}),
            ("range(1, 9, 2)", {"low": 1, "high": 7, "step": 2, "int": True}),
            ("range(4)", {"low": 0, "high": 3, "step": 1, "int": True}),
            ("range(9, 1, -2)", {"low": 3, "high": 9, "step": 2, "int": True}),
            ("range(0.1, 0.5, step=0.1)", {"low": 0.1, "high": 0.4, "step": 0.1, "int": False}),
            ("range(3, 4)", {"choices": [3]}),
            ("choice(4, 8, 16)", {"choices": [4, 8, 16]}),
            ("choice(4)", {"choices": [4]}),
            ("choice(linear, 'cosine')", {"choices": ["linear", "cosine"]}),
            ("choice(true, false)", {"choices": [True, False]}),
            ("choice(all-linear, [q_proj, v_proj])", {"choices": ["all-linear", ["q_proj", "v_proj"]]}),
        ],
    )
    def test_the_grammar_spells_out(self, text: str, form: dict[str, object]) -> None:
        assert spell_out("weight_decay", text) == form

    def test_a_mapping_is_spelled_out_already(self) -> None:
        assert spell_out("lora_rank", {"low": 4, "high": 64}) == {"low": 4, "high": 64}

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("sort(choice(4, 8))", "sort has no meaning in a search"),
            ("shuffle(range(4))", "shuffle has no meaning in a search"),
            ("glob(*)", "glob has no meaning in a search"),
            ("choice(null, 4)", "null is no value of a recipe field"),
            ("tag(log, choice(4, 8))", "only tag(log, interval(...)) has one"),
            ("tag(wide, interval(1, 2))", "tag(wide, ...) has no meaning here"),
            ("4, 8, 16", "write choice(4, 8, 16)"),
            ("log", "is nothing to search. Write interval(1e-4, 1e-2)"),
            ("interval(1)", "can't be read"),
            ("interval(1, 2", "can't be read"),
            ("choice()", "can't be read"),
            ("range(4, 4)", "range(4, 4, step=1) is empty"),
            ("range(1, 4, 0)", "is empty"),
        ],
    )
    def test_what_the_grammar_can_not_mean_is_refused(self, text: str, told: str) -> None:
        with pytest.raises(SpaceError, match=r"^space\.lora_rank: ") as error:
            spell_out("lora_rank", text)
        assert told in str(error.value)

    def test_the_command_line_takes_the_grammar(self, smoke: Compose) -> None:
        config = smoke("space.lora_rank=choice(8, 16)", "+space.lora_dropout=interval(0, 0.1)")
        mapping = config.space.to_mapping()
        assert mapping["lora_rank"] == {"choices": [8, 16]}
        assert mapping["lora_dropout"]["high"] == 0.1

    def test_a_mapping_replaces_the_grammar(self, smoke: Compose) -> None:
        config = smoke("space.lora_rank={low: 4, high: 64, log: true}")
        assert config.space.to_mapping()["lora_rank"] == {"low": 4, "high": 64, "log": True, "int": True}

    def test_a_key_leaves_the_search(self, smoke: Compose) -> None:
        assert "learning_rate" not in smoke("~space.learning_rate").space.to_mapping()

    @pytest.mark.parametrize(
        "override",
        ["recipe.learning_rate=1e-3", "++recipe.learning_rate=1e-3", "++recipe={learning_rate: 1e-3}"],
    )
    def test_setting_a_searched_key_names_the_way_out(self, override: str, smoke: Compose) -> None:
        with pytest.raises(SpaceError, match=r"recipe\.learning_rate: is set on the command line") as error:
            smoke(override)
        assert "~space.learning_rate" in str(error.value)
        assert smoke(override, "~space.learning_rate").recipe.learning_rate == 1e-3

    def test_an_experiment_may_set_a_searched_key(self, tmp_path: Path, write: Write) -> None:
        write("conf/experiment/mine.yaml", experiment("recipe: {learning_rate: 2.0e-4}\n"))
        config = compose(["+experiment=mine", *QUICK], working_directory=tmp_path)
        assert config.recipe.learning_rate == 2e-4

    @pytest.mark.parametrize(
        ("overrides", "told"),
        [
            (["space.lora_rank=choice(4, 8)"], "recipe.lora_rank=16 lies outside space.lora_rank"),
            (["space.lora_dropout=interval(0, 0.1)"], "To search it, write +space.lora_dropout"),
            (["~space.lora_dropout"], "space.lora_dropout: is not searched so far"),
            (["+space.epochs=interval(0.1, 1)"], "space.epochs: warm-up and decay are shares of a trial's"),
            (["+space.epochs=interval(0.1, 1)", "scheduler=median"], "Write scheduler=full, or leave"),
            (["+space.lora_rnk=choice(4, 8)"], "space.lora_rnk: no such recipe field"),
            (["space.lora_rank=[4, 8]"], "space.lora_rank: what to search must stand here, got [4, 8]"),
        ],
    )  # fmt: skip
    def test_a_space_that_contradicts_the_recipe_is_refused(
        self, overrides: list[str], told: str, smoke: Compose
    ) -> None:
        with pytest.raises(ConfigError) as error:
            smoke(*overrides)
        assert told in str(error.value)

    def test_epochs_are_searched_with_full_runs(self, smoke: Compose) -> None:
        config = smoke("+space.epochs=interval(0.1, 1)", "scheduler=full")
        assert "epochs" in config.space.to_mapping()

    def test_epochs_are_searched_where_each_fold_is_a_whole_training(self, smoke: Compose) -> None:
        config = smoke("+space.epochs=interval(0.1, 1)", "validation=kfold", "scheduler=wilcoxon")
        assert "epochs" in config.space.to_mapping()

    @pytest.mark.parametrize(("kept", "folds"), [("folds: 4", 4), ("folds: null", None), ("study: mine", 3)])
    def test_what_was_found_is_trained_as_it_was_found(
        self, kept: str, folds: int | None, smoke: Compose, write: Write
    ) -> None:
        """Whatever the scheduler is, for nothing is searched; a file of an earlier version does not say."""
        write("sweeps/best/found.yaml", f"# @package _global_\nbest: {{{kept}}}\n")
        config = smoke("+best=found", "validation=kfold", "validation.folds=3")
        assert config.validation.folds == folds

    def test_a_found_recipe_may_lie_outside_the_space(self, smoke: Compose, write: Write) -> None:
        write("sweeps/best/found.yaml", "# @package _global_\nrecipe: {lora_rank: 64}\nbest: {study: mine}\n")
        assert smoke("+best=found", "space.lora_rank=choice(4, 8)").recipe.lora_rank == 64


class TestRemoteCode:
    MODEL = (
        "{_target_: sweep.engines.model.Pretrained, path: them/theirs, "
        f"revision: {'0a' * 20}, dtype: float32, "
        "trust_remote_code: true}"
    )

    CONSENT = "++model.trust_remote_code=true"
    THEIRS = ("++model.path=them/theirs", f"++model.revision={'0a' * 20}")

    @pytest.fixture(params=["best: {model: MODEL}", "model: MODEL", "best: {study: a}\nmodel: MODEL"])
    def found(self, request: pytest.FixtureRequest, write: Write) -> None:
        body = request.param.replace("MODEL", self.MODEL)
        write("sweeps/best/found.yaml", f"# @package _global_\n{body}\n")

    @pytest.fixture
    def best(self, write: Write) -> None:
        """As sweeps write it."""
        write("sweeps/best/found.yaml", f"# @package _global_\nbest: {{model: {self.MODEL}}}\n")

    @pytest.mark.usefixtures("found")
    @pytest.mark.parametrize("said", [(), THEIRS, (CONSENT,)])
    def test_a_best_file_can_not_ask_for_it(self, said: tuple[str, ...], smoke: Compose) -> None:
        """Nor does a consent to the model that is configured without it."""
        with pytest.raises(
            ConfigError, match=r"^best\.model\.trust_remote_code: .*on the command line"
        ) as no:
            smoke("+best=found", *said)
        assert " ".join((*self.THEIRS, self.CONSENT)) in str(no.value)

    @pytest.mark.usefixtures("best")
    @pytest.mark.parametrize(
        "said",
        [
            ("++model.trust_remote_code=false",),
            (*THEIRS, "++model.trust_remote_code=false"),
            (CONSENT, THEIRS[0], f"++model.revision={'0b' * 20}"),
            (CONSENT, "++model.path=them/others", THEIRS[1]),
        ],
    )
    def test_a_refusal_is_no_consent_nor_is_one_to_another_model(
        self, said: tuple[str, ...], smoke: Compose
    ) -> None:
        with pytest.raises(ConfigError, match=r"^best\.model\.trust_remote_code: "):
            smoke("+best=found", *said)

    @pytest.mark.usefixtures("best")
    def test_a_consent_is_for_the_path_and_revision_that_it_names(self, smoke: Compose) -> None:
        config = smoke("+best=found", *self.THEIRS, self.CONSENT)
        assert config.model.arguments["trust_remote_code"] is True

    def test_a_consent_is_for_the_model_that_the_experiment_names(self, tmp_path: Path, write: Write) -> None:
        """So the command of the sweep is that of its training, but for `+best`."""
        write("conf/experiment/mine.yaml", experiment(f"model: {self.MODEL}\n"))
        write("sweeps/best/found.yaml", f"# @package _global_\nbest: {{model: {self.MODEL}}}\n")
        given = ["+experiment=mine", "model=hub", *QUICK, self.CONSENT]
        for overrides in (given, [*given, "+best=found"]):
            config = compose(overrides, working_directory=tmp_path)
            assert config.model.arguments["trust_remote_code"] is True


@dataclass(frozen=True, kw_only=True)
class Access:
    token: str
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A model behind secrets."""

    url: str
    access: Access
    mirrors: tuple[str, ...]

    identity = "guarded"

    def tokenizer(self) -> None: ...
    def load(self) -> None: ...


class TestSecretsOfAFoundModel:
    MODEL = Guarded(
        url="https://me:hunter2hunter2@host/model",
        access=Access(token="hunter3hunter3", headers={"Authorization": "Basic hunter4"}),
        mirrors=("https://one", "https://me:hunter5@two"),
    )

    @pytest.fixture
    def train(self, tmp_path: Path, write: Write) -> Compose:
        """Compose with what was found; configured: the model beside it."""
        named = {"_target_": f"{__name__}.Guarded"}

        def train(configured: dict[str, Any], *overrides: str) -> Config:
            found = yaml.safe_dump({"best": {"model": hidden(named | asdict(self.MODEL))}})
            assert "hunter" not in found
            write("sweeps/best/found.yaml", f"# @package _global_\n{found}")
            write("conf/model/guarded.yaml", yaml.safe_dump(named | configured))
            write("conf/experiment/mine.yaml", experiment("defaults: [{override /model: guarded}]\n"))
            trusting = f"trusted_targets=[{__name__}]"
            return compose(
                ["+experiment=mine", *QUICK, trusting, "+best=found", *overrides], working_directory=tmp_path
            )

        return train

    def test_they_are_the_configured_ones_wherever_they_stand(self, train: Compose) -> None:
        assert train(asdict(self.MODEL)).model.build() == self.MODEL

    def test_all_else_is_as_it_was_found(self, train: Compose) -> None:
        other = replace(self.MODEL, mirrors=("https://another", self.MODEL.mirrors[1]))
        assert train(asdict(other)).model.build() == self.MODEL

    @pytest.mark.parametrize(
        ("other", "path"),
        [
            ({"access": {"headers": {"Authorization": "Basic hunter4"}}}, "model.access.token"),
            ({"access": {"token": "hunter3hunter3"}}, "model.access.headers.Authorization"),
            ({"url": "https://me:hunter2hunter2@elsewhere/model"}, "model.url"),
            ({"mirrors": ["https://one"]}, r"model.mirrors\[1\]"),
            ({"access": "none"}, "model.access.headers.Authorization"),
        ],
    )
    def test_where_one_is_lacking_it_is_named(self, other: dict[str, Any], path: str, train: Compose) -> None:
        with pytest.raises(ConfigError, match=rf"^best\.{path}: holds \*\*\*.*Set {path} in the experiment"):
            train({**asdict(self.MODEL), **other})


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    names: tuple[str, ...]
    limit: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.limit == 13:
            raise ValueError("needs another limit than 13")


class TestTargets:
    OUTER = f"{__name__}.Outer"

    def read(self, **arguments: object) -> Target:
        return read_target({"_target_": self.OUTER, **arguments}, "outer", trusted=[__name__])

    def test_a_target_is_built_with_what_the_caller_adds(self) -> None:
        inner = {"_target_": f"{__name__}.Inner", "rate": "1e-3"}
        target = self.read(inner=inner, names=["a"], limit=None)
        assert target.build(seed=3) == Outer(inner=Inner(rate=1e-3), names=("a",), limit=None, seed=3)

    def test_a_nested_mapping_becomes_the_dataclass_that_the_hint_names(self) -> None:
        assert self.read(inner={"rate": 1}, names=[], limit=2).arguments["inner"] == Inner(rate=1.0)

    def test_a_nested_target_must_be_what_the_hint_names(self) -> None:
        with pytest.raises(ConfigError, match=r"outer\.inner\._target_: Outer is no Inner"):
            self.read(inner={"_target_": self.OUTER}, names=[], limit=2)

    def test_a_pruner_is_built_inside_a_scheduler(self, smoke: Compose) -> None:
        scheduler = smoke("scheduler=median").scheduler.build()
        assert isinstance(scheduler.pruner, optuna.pruners.MedianPruner)

    @pytest.mark.parametrize(
        ("overrides", "told"),
        [
            (["scheduler.eta=1"], "scheduler: Asha needs eta >= 2 and rungs >= 1, got eta=1, rungs=4."),
            (
                ["scheduler=one_epoch", "scheduler.k=0"],
                "scheduler: TopK needs k >= 1 and 0 < first_share < 1",
            ),
            (
                ["scheduler=median", "scheduler.pruner.n_startup_trials=-1"],
                "scheduler.pruner: MedianPruner Number of startup trials cannot be negative",
            ),
            (["model.heads=3"], "model: RandomLlama needs hidden_size, layers and heads above 0"),
            (["model.dtype=float16"], "model.dtype: must be one of bfloat16, float32, got 'float16'"),
            (["+sampler.seed=1"], "sampler.seed: the sweep sets this itself. Remove it"),
        ],
    )
    def test_arguments_that_a_class_refuses_are_told_at_once(
        self, overrides: list[str], told: str, smoke: Compose
    ) -> None:
        with pytest.raises(ConfigError) as error:
            smoke(*overrides)
        assert told in str(error.value)

    def test_an_experiments_keys_are_left_aside_where_they_were_for_another_choice(
        self, write: Write, tmp_path: Path
    ) -> None:
        write("conf/experiment/mine.yaml", experiment("scheduler: {eta: 4, rungs: 2}\n"))
        mine = ["+experiment=mine", *QUICK]

        def arguments(*overrides: str) -> dict[str, object]:
            return dict(compose([*mine, *overrides], working_directory=tmp_path).scheduler.arguments)

        assert arguments() == {"eta": 4, "rungs": 2}
        assert arguments("scheduler=full") == {}
        assert arguments("scheduler=one_epoch").keys() == {"k", "first_share"}
        assert arguments("scheduler=median")["eta"] == 4, "what the other choice takes too, it gets"
        with pytest.raises(ConfigError, match=r"^scheduler\.eta: no such key"):
            arguments("scheduler=full", "scheduler.eta=3")
        write("conf/scheduler/own.yaml", "_target_: sweep.search.scheduler.Full\neta: 3\n")
        with pytest.raises(ConfigError, match=r"^scheduler\.eta: no such key"):
            arguments("scheduler=own")

    def test_a_key_of_no_file_of_the_group_is_a_mistake_whatever_is_chosen(
        self, write: Write, tmp_path: Path
    ) -> None:
        write("conf/experiment/mine.yaml", experiment("scheduler: {etta: 2}\n"))
        for chosen in ([], ["scheduler=asha"], ["scheduler=full"]):
            with pytest.raises(ConfigError, match=r"^scheduler\.etta: no such key"):
                compose(["+experiment=mine", *QUICK, *chosen], working_directory=tmp_path)

    def test_the_loss_is_chosen_over_an_experiments_goal(self) -> None:
        assert compose(["+experiment=support_bot", "objective=loss"]).objective.build() == Loss(
            rung_metric="loss"
        )

    @pytest.mark.parametrize("name", ["CmaEsSampler", "GridSampler", "BruteForceSampler"])
    def test_samplers_that_keep_state_on_trials_are_refused(self, name: str, smoke: Compose) -> None:
        keys = ["+sampler.search_space={lora_rank: [8]}"] if name == "GridSampler" else []
        with pytest.raises(ConfigError, match=rf"^sampler: {name} needs the trial.*Write sampler=tpe"):
            smoke("sampler=random", f"sampler._target_=optuna.samplers.{name}", *keys)

    def test_a_class_that_can_not_take_what_the_sweep_passes_is_refused(self, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match=r"^sampler: PartialFixedSampler takes no `seed`"):
            smoke(
                "sampler=random",
                "sampler._target_=optuna.samplers.PartialFixedSampler",
                "+sampler.fixed_params={lora_rank: 8}",
                "+sampler.base_sampler={_target_: optuna.samplers.RandomSampler}",
            )

    def test_what_the_caller_sets_may_not_stand_in_the_file(self) -> None:
        target = self.read(inner={"rate": 1}, names=[], limit=2, seed=1)
        with pytest.raises(ConfigError, match=r"outer\.seed: the sweep sets this itself. Remove it"):
            target.build(seed=3)

    def test_what_the_class_refuses_is_named_with_its_path(self) -> None:
        with pytest.raises(ConfigError, match=r"^outer: Outer needs another limit than 13\.$"):
            self.read(inner={"rate": 1}, names=[], limit=13).build(seed=1)

    def test_the_file_alone_can_trust_nobody(self, tmp_path: Path, write: Write) -> None:
        body = "trusted_targets: [subprocess]\nsampler: {_target_: subprocess.Popen, args: 'true'}\n"
        write("conf/experiment/mine.yaml", experiment(body))
        with pytest.raises(ConfigError, match=r"^trusted_targets: a file sets it to \[subprocess\]"):
            compose(["+experiment=mine", "objective=loss"], working_directory=tmp_path)

    def test_the_command_line_can_trust_a_module(self, smoke: Compose) -> None:
        trusted = smoke(
            f"trusted_targets=[{__name__}]",
            f"sampler._target_={__name__}.MySampler",
            "~sampler.n_startup_trials",
            "~sampler.multivariate",
            "~sampler.group",
        )
        assert trusted.sampler.cls is MySampler

    @pytest.mark.parametrize(
        ("target", "told"),
        [
            ("os.system", "'os.system' is not under sweep, optuna.samplers, optuna.pruners"),
            ("pathlib.Path.write_text", "is not under sweep"),
            ("sweeper.Evil", "is not under sweep"),
            ("optuna.samplers._gp.sampler.torch.load", "can't be imported"),
            ("optuna.samplers._gp.sampler.torch", "a class must stand here"),
            ("optuna.samplers._tpe.sampler.hyperopt_default_gamma", "is a function; a class must stand here"),
            (
                "optuna.samplers._tpe.sampler.FrozenTrial",
                "is optuna.trial._frozen.FrozenTrial, which is not under",
            ),
            ("sweep.data.rows.Path", "is pathlib.Path, which is not under"),
            ("optuna.samplers.__dict__.clear", "is not under"),
            ("optuna.pruners.MedianPruner", "MedianPruner is no BaseSampler"),
            ("optuna.samplers.TPESample", "has no class 'TPESample'. Nearest: TPESampler"),
            ("optuna.samplers.nowhere.Sampler", "can't be imported: No module named"),
            ("sweep.search.scheduler.Asha", "Asha is no BaseSampler"),
            ("TPESampler", "is not under"),
        ],
    )
    def test_only_classes_of_the_right_kind_are_reached(self, target: str, told: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match=r"^sampler\._target_: ") as error:
            smoke(f"sampler._target_={target}")
        assert told in str(error.value)

    @pytest.mark.parametrize(
        "group",
        [
            "engine",
            "backend",
            "model",
            "scheduler",
            "metric.perplexity",
            "scorer.facts",
            "objective",
            "baseline.canned",
        ],
    )
    def test_each_group_takes_its_protocol_only(self, group: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match=rf"^{group}\._target_: RandomSampler is no "):
            smoke(f"{group}._target_=optuna.samplers.RandomSampler")

    def test_metrics_stand_by_their_names(self, smoke: Compose) -> None:
        assert [*smoke().metrics] == ["perplexity", "hard_rows"]
        assert [*smoke("metric=hard_rows").metrics] == ["hard_rows"]
        assert [*smoke("metric=[]").metrics] == []
        worst = smoke("+metric.worst={_target_: sweep.evaluation.metrics.HardRows, share: 0.01}")
        assert worst.metrics["worst"].build() == HardRows(share=0.01)

    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ("metric=[perplexity,hard_row]", "metric=hard_row: no such file. There are: hard_rows, "),
            ("metric.hard_rows.share=0", "metric.hard_rows: HardRows needs share above 0 and at most 1"),
            ("~metric.hard_rows.share", "metric.hard_rows.share: missing; HardRows needs it"),
            (
                "metric.perplexity._target_=sweep.search.scheduler.Full",
                "metric.perplexity._target_: Full is no Metric",
            ),
            (
                "+metric._target_=sweep.evaluation.metrics.Perplexity",
                "metric._target_: a metric stands under its own name",
            ),
            ("+metric._mine={}", "metric._mine: a metric stands under its own name"),
            ("+metric.seconds={}", "metric.seconds: every trial has a seconds already"),
            ("+metric.mine=3", "metric.mine: keys with a `_target_` must stand here, got 3"),
            ("metric=perplexity,hard_rows", "Give one; for a list, write metric=[a, b]"),
        ],
    )
    def test_a_metric_that_can_not_be_is_told_at_once(self, override: str, told: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError) as error:
            smoke(override)
        assert told in str(error.value)

    def test_scorers_stand_by_their_names(self, smoke: Compose) -> None:
        assert [(name, target.build()) for name, target in smoke().scorers.items()] == [
            ("facts", Facts()),
            ("chrf", Chrf()),
        ]
        assert [*smoke("scorer=[rouge_l,exact]").scorers] == ["rouge_l", "exact"]
        assert [*smoke("scorer=[]").scorers] == []

    def test_the_objective_is_typed(self, smoke: Compose) -> None:
        assert smoke().objective.build() == Loss(rung_metric="loss")
        assert smoke("objective.rung_metric=hard_rows").objective.build().rung_metric == "hard_rows"
        chrf = smoke("objective=metric").objective.build()
        assert (chrf.metric, chrf.proxy) == ("chrf", "chrf")
        rouge = smoke("objective=metric", "objective.metric=rouge_l", "scorer=rouge_l").objective.build()
        assert (rouge.metric, rouge.proxy) == ("rouge_l", "rouge_l")
        business = smoke(
            "objective=business",
            "objective.goal=fewer",
            "objective.success={net_per_ticket_min: -1, resolved_min: 0, wrong_max: 1}",
            "objective.one_off.data=null",
        ).objective.build()
        assert business.success == Success(net_per_ticket_min=-1, resolved_min=0, wrong_max=1)
        assert business.one_off == OneOff(training=150, data=None, horizon_months=6)

    def test_a_scorer_of_mlflow_is_imported_where_the_command_line_trusts_it(self, smoke: Compose) -> None:
        place = "tests.tracking.test_scorer"
        ours = f"+scorer.polite={{_target_: sweep.tracking.scorer.FromMlflow, function: {place}.polite}}"
        built = smoke(ours, f"trusted_targets=[{place}]").scorers["polite"].build()
        assert built(ticket(), "Please wait.") == 1.0
        with pytest.raises(ConfigError, match=rf"^scorer\.polite\.function: '{place}\.polite' is not under"):
            smoke(ours)
        with pytest.raises(ConfigError, match=r"^scorer\.polite: FromMlflow needs function=.* to be there"):
            smoke(ours.replace("polite}", "rude}"), f"trusted_targets=[{place}]")

    def test_baselines_stand_by_their_names(self, smoke: Compose) -> None:
        assert [*smoke().baselines] == [
            "canned",
            "nearest",
            "zero_shot",
            "few_shot",
            "few_shot_retrieved",
            "retrieval",
        ]
        assert [*smoke("baseline=[zero_shot,canned]").baselines] == ["zero_shot", "canned"]
        assert [*smoke("baseline=[]").baselines] == []
        polite = smoke("+baseline.polite={_target_: sweep.data.baselines.Canned, text: Thank you.}")
        assert polite.baselines["polite"].build() == Canned(text="Thank you.")

    @pytest.mark.parametrize(
        ("override", "told"),
        [
            ("+baseline._mine={}", "baseline._mine: a baseline stands under its own name"),
            ("+baseline.mine={_target_: os.system}", "'os.system' is not under sweep"),
            ("~baseline.few_shot.examples", "baseline.few_shot.examples: missing; FewShot needs it"),
        ],
    )
    def test_a_baseline_that_can_not_be_is_told_at_once(
        self, override: str, told: str, smoke: Compose
    ) -> None:
        with pytest.raises(ConfigError) as error:
            smoke(override)
        assert told in str(error.value)

    def test_a_name_without_a_class_asks_for_one(self, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match=r"scheduler\.pruner: a class must be named here") as error:
            smoke("scheduler=median", "scheduler.pruner=median")
        assert "BasePruner; got 'median'" in str(error.value)


class MySampler(optuna.samplers.RandomSampler):
    pass


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ("hydra: {callbacks: {evil: {_target_: pathlib.Path, _args_: [x]}}}\n", "hydra.callbacks"),
            ("hydra: {job_logging: {handlers: {x: {class: evil.Evil}}}}\n", "hydra.job_logging"),
            ("hydra: {run: {dir: /tmp/evil}}\n", "hydra.run"),
            ("hydra: {job: {env_set: {PATH: /tmp}}}\n", "hydra.job"),
            ("hydra: {launcher: {_target_: os.system}}\n", "hydra.launcher"),
            ("defaults: [{override /hydra/job_logging: none}]\n", "hydra.job_logging"),
            ("output: ${hydra:runtime.cwd}\n", "output: ${hydra:...} can't be used here"),
            ("output: ${hydra.runtime.cwd}\n", "output: ${hydra:...} can't be used here"),
        ],
    )
    def test_a_file_that_configures_hydra_is_refused(
        self, body: str, told: str, tmp_path: Path, write: Write
    ) -> None:
        write("conf/experiment/mine.yaml", experiment(body))
        with pytest.raises(ConfigError) as error:
            compose(["+experiment=mine"], working_directory=tmp_path)
        assert str(error.value).startswith(told)

    @pytest.mark.parametrize("override", ["hydra.run.dir=x", "hydra/launcher=basic", "+hydra.callbacks.x=1"])
    def test_an_override_of_hydra_is_refused(self, override: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError, match="Hydra itself is not configurable here"):
            smoke(override)

    def test_yaml_tags_make_no_objects(self, tmp_path: Path, write: Write) -> None:
        write("conf/experiment/mine.yaml", experiment("seed: !!python/object/apply:os.getpid []\n"))
        with pytest.raises(ConfigError, match="is no YAML: could not determine a constructor for the tag"):
            compose(["+experiment=mine"], working_directory=tmp_path)


class TestSecrets:
    PASSWORD = "hunter2hunter2"

    def test_no_secret_is_saved_shown_or_printed(
        self, smoke: Compose, monkeypatch: pytest.MonkeyPatch, write: Write
    ) -> None:
        monkeypatch.setenv("SWEEP_PASSWORD", self.PASSWORD)
        config = smoke(
            "storage=postgresql://me:${oc.env:SWEEP_PASSWORD}@host/db",
            "tracking.uri=${storage}",
            f"+best={{api_key: {self.PASSWORD}, url: 'https://{self.PASSWORD}@host', "
            f"query: 'postgresql://host/db?password={self.PASSWORD}', rows: 3}}",
        )
        assert config.storage == config.tracking.uri == f"postgresql://me:{self.PASSWORD}@host/db"
        assert config.composed["storage"] == config.composed["tracking"]["uri"]
        assert config.composed["storage"] == f"postgresql://me:{HIDDEN}@host/db"
        assert config.composed["best"]["api_key"] == HIDDEN
        assert config.composed["best"]["rows"] == 3
        for text in (str(config.composed), str(config.overrides)):
            assert self.PASSWORD not in text

    def test_a_password_in_an_override_is_hidden(self, smoke: Compose) -> None:
        config = smoke(f"storage=postgresql://me:{self.PASSWORD}@host/db")
        assert config.composed["storage"] == f"postgresql://me:{HIDDEN}@host/db"
        assert self.PASSWORD not in f"{config.overrides}{config.composed}{config!r}"

    def test_what_merely_sounds_like_a_secret_is_kept(self, smoke: Compose) -> None:
        config = smoke()
        assert config.composed["data"]["max_tokens"] == config.data.max_tokens

    @pytest.mark.parametrize(
        "override",
        [
            "storage=postgresql://me:{password}@host/db,x",
            "storage=[postgresql://me:{password}@host/db]",
            "storage=postgresql://me:{password}@host/db(",
            "+tracking.api_token={password}",
        ],
    )
    def test_errors_hide_secrets(self, override: str, smoke: Compose) -> None:
        with pytest.raises(ConfigError) as error:
            smoke(override.format(password=self.PASSWORD))
        assert self.PASSWORD not in str(error.value)


class TestCommands:
    def test_describe_shows_the_config_without_importing_its_classes(self, tmp_path: Path) -> None:
        text = describe(["+experiment=smoke", "engine._target_=nowhere.Engine"], working_directory=tmp_path)
        node = yaml.safe_load(text)
        assert node["engine"]["_target_"] == "nowhere.Engine"
        assert node["name"] == "smoke"

    def test_an_experiment_says_what_it_is_for_while_that_is_true(self, tmp_path: Path) -> None:
        as_shipped = compose(["+experiment=smoke"], working_directory=tmp_path)
        assert as_shipped.purpose.endswith("Its numbers mean nothing.")
        assert compose(["+experiment=smoke", "seed=1"], working_directory=tmp_path).purpose == ""

    def test_usage_lists_what_can_be_chosen(self, tmp_path: Path, write: Write) -> None:
        write("conf/experiment/mine.yaml", experiment(""))
        write("sweeps/best/found.yaml", "# @package _global_\n")
        text = usage("sweep", tmp_path)
        assert "mine               For a test." in text
        assert "smoke" in text
        assert "sampler            gp, nsga2, random, tpe" in text
        assert "Found configurations: found" in text
        assert "hydra" not in text.lower()

    def test_help_imports_nothing_heavy(self, tmp_path: Path) -> None:
        code = (
            "import sys; from sweep.config import describe; from sweep.usage import usage;"
            " usage('sweep'); describe(['+experiment=smoke']);"
            "heavy = {'torch', 'optuna', 'transformers', 'mlflow', 'pandas'}; print(heavy & set(sys.modules))"
        )
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            env={**os.environ},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == "set()"


@dataclass(frozen=True)
class Settings:
    rows: int
    share: float = 0.5
    label: str | None = None


class TestBuild:
    def test_defaults_fill_in(self) -> None:
        assert build(Settings, {"rows": 3}, "here") == Settings(rows=3)

    @pytest.mark.parametrize(
        ("node", "told"),
        [
            ({}, "here.rows: missing. Add it, with a whole number"),
            ([], "here: keys and values must stand here, got []"),
            ({"row": 3}, "here.row: no such key. Did you mean `here.rows`?"),
            ({"rows": 3, "share": "half"}, "here.share: a number must stand here, got 'half'"),
            ({"rows": 3, "share": True}, "here.share: a number must stand here, got True"),
            ({"rows": 3, "label": 2}, "here.label: one of these must stand here: a text, null; got 2"),
            ({"rows": "x" * 200}, "..."),
        ],
    )
    def test_what_does_not_fit_is_named(self, node: object, told: str) -> None:
        with pytest.raises(ConfigError, match=r"^here") as error:
            build(Settings, node, "here")
        assert told in str(error.value)
