"""A configuration file of somebody else runs nothing, reads no file of elsewhere, exhausts no machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.__main__ import sweep
from sweep.commands import run_command
from sweep.composition import compose_plain
from sweep.config import compose
from sweep.errors import ConfigError, SpaceError
from sweep.tracking.best import read_best
from sweep.untrusted import MOST_VALUES

Refused = Callable[..., str]

HEAD = "# @package _global_\n"
NAMED = f"{HEAD}name: mine\n"
LAUGHS = "best:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
DEEP = f"best: {'[' * 5000}{']' * 5000}\n"


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """What an experiment with this body is refused with."""

    def refused(body: str, *overrides: str, kind: type[ConfigError] = ConfigError) -> str:
        (tmp_path / "conf/experiment").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf/experiment/mine.yaml").write_text(
            (HEAD if body.startswith("name:") else NAMED) + body
        )
        with pytest.raises(kind) as error:
            compose(
                ["+experiment=mine", "engine=synthetic", "objective=loss", *overrides],
                working_directory=tmp_path,
            )
        return str(error.value)

    return refused


class TestPlaces:
    @pytest.mark.parametrize(
        "defaults",
        [
            "[../../elsewhere/secret@best]",
            "[/../elsewhere/secret@best]",
            '["\\x2e\\x2e/../elsewhere/secret@best"]',
            "[{override /space: ../../elsewhere/secret}]",
        ],
    )
    def test_a_defaults_list_names_no_file_of_elsewhere(
        self, defaults: str, refused: Refused, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/secret.yaml").write_text("lora_rank: choice(4, 8)\n")
        said = refused(f"defaults: {defaults}\n")
        assert "elsewhere/secret: a defaults list names it, but it leaves the folders" in said

    def test_an_absolute_path_is_looked_for_on_the_search_path_alone(
        self, refused: Refused, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/secret.yaml").write_text("lora_rank: choice(4, 8)\n")
        assert "there is no such file" in refused(f"defaults: [{tmp_path}/elsewhere/secret@best]\n")

    @pytest.mark.parametrize("override", ["space=../../elsewhere/secret", "+best=../../elsewhere/secret"])
    def test_nor_does_an_override(self, override: str, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/secret.yaml").write_text("# @package _global_\nlora_rank: choice(4, 8)\n")
        assert "no such file" in refused("", override)

    def test_files_of_another_project_beside_them_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "conf/theirs").mkdir(parents=True)
        (tmp_path / "conf/theirs/all.yaml").write_text("defaults: [../../shared/all]\nvalue: !odd 1\n")
        assert compose_plain(["+experiment=smoke"], tmp_path).plain["name"] == "smoke"

    def test_no_file_adds_a_folder_to_the_search_path(self, refused: Refused, tmp_path: Path) -> None:
        assert "hydra.searchpath" in refused(f"hydra: {{searchpath: ['file://{tmp_path}']}}\n")

    @pytest.mark.parametrize("name", ["../../x", "..", "a\nb"])
    def test_a_name_is_no_path(self, name: str, refused: Refused) -> None:
        assert refused(f'name: "{name.encode("unicode_escape").decode()}"\n').startswith(
            "name: must be letters"
        )

    @pytest.mark.parametrize("key", ["name", "output", "storage"])
    def test_no_text_ends_early(self, key: str, refused: Refused) -> None:
        assert refused(f'{key}: "a\\0b"\n').startswith(f"{key}: holds the character \\0")

    @pytest.mark.parametrize("output", ["/", "'~'", ".", "..", "../.."])
    def test_results_go_into_a_folder_of_their_own(
        self, output: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "a/b")
        assert refused(f"output: {output}\n").startswith("output: must be a folder of its own")


class TestSize:
    @pytest.mark.parametrize("body", [LAUGHS, "best: &b {x: *b}\n", "best: &b [*b]\n"])
    def test_aliases_do_not_make_much_of_little(self, body: str, refused: Refused) -> None:
        assert f"by its aliases (&, *) it holds more than {MOST_VALUES:,} values" in refused(body)

    def test_an_alias_that_repeats_a_few_values_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "conf/experiment").mkdir(parents=True)
        body = "recipe: {weight_decay: &w 0.1}\nbest: {a: &a [1, 2], b: [*a, *a], c: *w}\n"
        (tmp_path / "conf/experiment/mine.yaml").write_text(NAMED + body)
        composed = compose_plain(["+experiment=mine", "objective=loss"], tmp_path)
        assert composed.plain["best"] == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": 0.1}

    @pytest.mark.parametrize("body", [DEEP, DEEP.replace("[", "{a: ").replace("]", "}")])
    def test_what_is_nested_without_end_is_refused(self, body: str, refused: Refused) -> None:
        assert "nested hundreds of levels deep" in refused(body)

    def test_so_are_interpolations(self, refused: Refused) -> None:
        nested = "${oc.decode:" * 900 + "1" + "}" * 900
        assert "nested hundreds of levels deep" in refused(f"best: {{x: '{nested}'}}\n")

    @pytest.mark.parametrize(("body", "told"), [(LAUGHS, "by its aliases"), (DEEP, "nested hundreds")])
    def test_a_registered_configuration_is_held_to_the_same(
        self, body: str, told: str, tmp_path: Path
    ) -> None:
        (tmp_path / "best.yaml").write_text(body)
        with pytest.raises(ConfigError, match=told):
            read_best(tmp_path / "best.yaml")

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (f"seed: {'9' * 4000}\n", "seed: a whole number must stand here"),
            (f"seed: {2**63}\n", "seed: a whole number must stand here"),
            (f"budget: {{trials: {10**21}}}\n", "budget.trials: a whole number must stand here"),
            ("budget: {minutes: .inf}\n", "budget.minutes: one of these must stand here: a number, null"),
            ("recipe: {learning_rate: 1e999}\n", "recipe.learning_rate: a number must stand here"),
            ("recipe: {learning_rate: .nan}\n", "recipe.learning_rate: a number must stand here"),
        ],
    )
    def test_numbers_that_no_library_takes_are_refused(self, body: str, told: str, refused: Refused) -> None:
        assert refused(body).startswith(told)


def test_a_file_with_a_control_character_is_named(refused: Refused) -> None:
    said = refused("best: \x1b[2J\n")
    assert "conf/experiment/mine.yaml: is no YAML: unacceptable character #x001b" in said


class TestCode:
    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os').system('touch ran')",
            "lora_rank.__class__ == 1",
            "(lambda: 1)() == 1",
            "[x for x in (1,)] == lora_rank",
            f"{'(' * 3000}lora_rank == 1{')' * 3000}",
        ],
    )
    def test_a_condition_of_a_space_is_no_code(
        self, text: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        body = f'space: {{lora_dropout: {{low: 0.0, high: 0.1, when: "{text}"}}}}\n'
        assert refused(body, kind=SpaceError).startswith("space.lora_dropout.when: ")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "body",
        [
            "seed: !!python/object/apply:os.system ['touch ran']\n",
            "seed: !!python/object/new:os.system ['touch ran']\n",
            "seed: !!python/name:os.system\n",
            "seed: !!python/module:os\n",
        ],
    )
    def test_a_tag_makes_no_object(
        self, body: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert "is no YAML" in refused(body)
        assert not (tmp_path / "ran").exists()

    def test_a_file_does_not_trust_a_models_code(self, refused: Refused) -> None:
        model = f"{{path: them/theirs, revision: {'0a' * 20}, trust_remote_code: true}}"
        said = refused(f"defaults: [{{override /model: hub}}]\nmodel: {model}\n")
        assert said.startswith("model.trust_remote_code: a file sets it, but only the command line")

    def test_a_file_does_not_trust_a_module(self, refused: Refused) -> None:
        assert refused("trusted_targets: [os]\n").startswith("trusted_targets: a file sets it to [os]")


def test_a_composed_configuration_is_shown_without_touching_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--cfg job` is what docs/security.md tells people to look at first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/experiment").mkdir(parents=True)
    body = "storage: sqlite:///made.db\noutput: made\nengine: {_target_: evil.Evil}\n"
    (tmp_path / "conf/experiment/mine.yaml").write_text(NAMED + body)
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')\n")
    assert run_command("sweep", ["+experiment=mine", "objective=loss", "--cfg", "job"], sweep) == 0
    assert "_target_: evil.Evil" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "evil.py"]
