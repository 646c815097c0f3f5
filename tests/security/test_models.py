"""Models, adapters and checkpoints of others are weights and settings; what would run is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch

from sweep.data.encode import encode
from sweep.data.example import Example, Message
from sweep.engines.cache import cached
from sweep.engines.inputs import Inputs
from sweep.engines.model import Pretrained, RandomLlama, describe, load_with_adapter, peft_on_transformers
from sweep.engines.packed import Packed
from sweep.engines.solo import Solo
from sweep.errors import ModelError
from tests.contracts.engine import job, reports
from tests.engines.conftest import tiny_inputs
from tests.security import hostile

TINY = RandomLlama(hidden_size=32, layers=2, heads=2, seed=0, dtype="float32")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What is there if anything ran."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as `save_pretrained` leaves it."""
    shutil.copytree(cached(TINY.identity, TINY._make), tmp_path / "theirs")
    return tmp_path / "theirs"


def theirs(folder: Path) -> Pretrained:
    return Pretrained(path=str(folder), revision=None, dtype="float32", trust_remote_code=False)


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


class TestModels:
    def test_the_folder_by_itself_loads(self, folder: Path) -> None:
        assert theirs(folder).load().model.config.hidden_size == 32

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors.index.json"])
    def test_weights_that_are_pickles_are_refused(self, name: str, folder: Path, ran: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(hostile.Pickled(ran), folder / "pytorch_model.bin")
        if name.endswith(".json"):
            index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
            (folder / name).write_text(json.dumps(index))
        elif name != "pytorch_model.bin":
            (folder / "pytorch_model.bin").rename(folder / name)
        with pytest.raises(ModelError, match="with safetensors weights"):
            theirs(folder).load()
        assert not ran.exists()

    @pytest.mark.parametrize("auto", ["AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"])
    def test_code_in_the_folder_is_not_run(
        self, auto: str, folder: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # transformers asks on a terminal, and takes y for consent.
        monkeypatch.setattr("builtins.input", lambda *asked: "y")
        (folder / "evil.py").write_text(hostile.module(ran))
        if auto == "AutoTokenizer":
            change(
                folder / "tokenizer_config.json",
                tokenizer_class="Evil",
                auto_map={auto: ["evil.Evil", "evil.Evil"]},
            )
        else:
            change(folder / "config.json", model_type="evil", auto_map={auto: "evil.Evil"})
        with pytest.raises(ModelError, match=r"model\.path="):
            theirs(folder).load()
        assert not ran.exists()

    def test_what_a_setting_wants_imported_is_no_crash(self, folder: Path) -> None:
        """An attention kernel of the hub: code that a library outside our requirements would fetch."""
        change(folder / "config.json", _attn_implementation="theirs/kernel")
        with pytest.raises(ModelError, match=r"model\.path=.*kernels"):
            theirs(folder).load()

    @pytest.mark.parametrize("revision", [None, "main", "v1.0", "0a" * 19, "0A" * 20, f"{'0a' * 20}\n"])
    def test_code_of_the_hub_needs_the_commit_that_was_reviewed(self, revision: str | None) -> None:
        with pytest.raises(ModelError, match="the commit you reviewed, 40 hexadecimal digits"):
            Pretrained(path="them/theirs", revision=revision, dtype="float32", trust_remote_code=True)
        assert Pretrained(path="a/b", revision="0a" * 20, dtype="float32", trust_remote_code=True)


class TestTemplates:
    @pytest.mark.parametrize(
        "template",
        [
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ messages.append.__globals__ }}",
            "{{ cycler.__init__.__globals__.os.mkdir('RAN') }}",
            "{{ self.__init__.__globals__ }}",
            "{{ (messages|map(attribute='__class__')|list)[0].__base__ }}",
            "{% set _ = messages.append(1) %}",
            "{% include '/etc/passwd' %}",
            "{{ range(1000000000)|list }}",
        ],
    )
    def test_a_chat_template_reaches_nothing(self, template: str, folder: Path, ran: Path) -> None:
        (folder / "chat_template.jinja").write_text(template.replace("RAN", str(ran)))
        tokenizer = theirs(folder).tokenizer()
        turns = (Message(role="user", content="hello"), Message(role="assistant", content="hi"))
        told = r"its chat template refuses.*(unsafe|no loader|too big|undefined)"
        example = Example(id="1", messages=turns, intent=None, required=(), forbidden=(), slices={})
        with pytest.raises(ModelError, match=told):
            encode([example], tokenizer, max_tokens=64)
        assert not ran.exists()


class TestAdapters:
    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Path:
        with peft_on_transformers():
            config = peft.LoraConfig(r=2, target_modules=["q_proj"])
            peft.get_peft_model(TINY.load().model, config).save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    def test_the_adapter_by_itself_loads(self, adapter: Path) -> None:
        assert isinstance(load_with_adapter(describe(TINY), adapter).model, peft.PeftModel)

    def test_a_pickled_one_is_refused(self, adapter: Path, ran: Path) -> None:
        (adapter / "adapter_model.safetensors").unlink()
        torch.save(hostile.Pickled(ran), adapter / "adapter_model.bin")
        with pytest.raises(ModelError, match=r"must hold adapter_model\.safetensors"):
            load_with_adapter(describe(TINY), adapter)
        assert not ran.exists()

    def test_a_pickle_beside_the_weights_is_not_read(self, adapter: Path, ran: Path) -> None:
        torch.save(hostile.Pickled(ran), adapter / "adapter_model.bin")
        load_with_adapter(describe(TINY), adapter)
        assert not ran.exists()

    @pytest.mark.parametrize("kind", ["PROMPT_TUNING", "XLORA", "ADAPTION_PROMPT", None])
    def test_other_kinds_are_refused(self, kind: str | None, adapter: Path) -> None:
        change(adapter / "adapter_config.json", peft_type=kind)
        with pytest.raises(ModelError, match=f"its peft_type is {kind}; must be LORA"):
            load_with_adapter(describe(TINY), adapter)

    def test_its_settings_import_no_module(
        self, adapter: Path, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "evil.py").write_text(hostile.module(ran))
        monkeypatch.syspath_prepend(tmp_path)
        change(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil")
        with pytest.raises(ValueError, match="megatron_core='evil' does not start with a valid prefix"):
            load_with_adapter(describe(TINY), adapter)
        assert not ran.exists()


class TestCheckpoints:
    @pytest.fixture
    def inputs(self, tmp_path: Path) -> Inputs:
        return tiny_inputs(tmp_path)

    def test_the_packed_engines_hold_no_pickle(self, inputs: Inputs) -> None:
        engine = Packed(inputs=inputs, slots=2, tokens=1024)
        (report,) = reports(engine, job(0, 24))
        engine.close()
        endings = {path.suffix for path in Path(report.checkpoint or "").iterdir()}
        assert endings == {".json", ".safetensors"}

    @pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
    def test_a_hostile_state_of_the_reference_engine_does_not_run(
        self, name: str, inputs: Inputs, ran: Path, resummed: Callable[[Path], None]
    ) -> None:
        engine = Solo(inputs=inputs, micro_batch=8)
        (first,) = reports(engine, job(0, 24))
        folder = Path(first.checkpoint or "")
        torch.save(hostile.Pickled(ran), folder / name)
        resummed(folder)
        (second,) = reports(engine, job(24, 48, checkpoint=str(folder)))
        engine.close()
        assert second.state == "failed"
        assert "Weights only load failed" in str(second.error)
        assert not ran.exists()

    @pytest.fixture
    def resummed(self) -> Callable[[Path], None]:
        """Checksums are no signature: who may write a checkpoint may write them too."""
        from sweep.engines import checkpoint

        def resummed(folder: Path) -> None:
            sums = {path.name: checkpoint._sha256(path) for path in folder.iterdir()}
            sums.pop(checkpoint._SUMS)
            (folder / checkpoint._SUMS).write_text(json.dumps(sums))
            checkpoint.verified(folder)

        return resummed


def test_the_bait_is_taken_by_who_unpickles(tmp_path: Path, ran: Path) -> None:
    """Or the tests above could not fail."""
    with (tmp_path / "bait").open("wb") as file:
        pickle.dump(hostile.Pickled(ran), file)
    with (tmp_path / "bait").open("rb") as file:
        pickle.load(file)
    assert ran.exists()
