"""A registered adapter as a model that MLflow can load, serve and score. MLflow runs this file by itself.

Prompts in, answers out. The base model comes from where the logged `model_config` says; only the
adapter is stored with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 256


class AdapterModel(PythonModel):
    """Answers one prompt per row. The base model is loaded at the first prediction, not before.

    params: `max_new_tokens`, and `system_prompt`, empty for none.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Take note of where base and adapter lie."""
        self._adapter = Path(context.artifacts["adapter"])
        self._base: dict[str, object] = dict(context.model_config or {})
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[str]:
        """One answer per row of the column `prompt`, or of the only column there is."""
        from sweep.engines.generate import generate
        from sweep.engines.model import load_with_adapter
        from sweep.types import Asking, Prompt

        if self._loaded is None:
            self._loaded = load_with_adapter(self._base, self._adapter)
        column = "prompt" if "prompt" in model_input else model_input.columns[0]
        chosen = params or {}
        system = chosen.get("system_prompt")
        before = (("system", str(system)),) if system else ()
        prompts = tuple(
            Prompt(str(row), (*before, ("user", str(prompt))))
            for row, prompt in enumerate(model_input[column])
        )
        asking = Asking(prompts, int(chosen.get("max_new_tokens", MAX_NEW_TOKENS)))
        return [reply.text for reply in generate(*self._loaded, asking)]


set_model(AdapterModel())
