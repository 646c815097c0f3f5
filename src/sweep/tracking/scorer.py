"""MLflow's scorers as scorers of replies."""

from __future__ import annotations

import importlib
from typing import Any

from sweep.data.example import Example
from sweep.schema import Code
from sweep.tracking.store import quieten

_WORDS = {"yes": 1.0, "no": 0.0}


class FromMlflow:
    """What an MLflow scorer says of a reply: a bool, a number from 0 to 1, "yes" or "no", or such a Feedback.

    function: its dotted name, a function under `@scorer` or an instance of a scorer class. It may ask for
    `inputs`, {"messages": the turns before the answer}; `outputs`, the reply; and `expectations`,
    {"expected_response", "expected_facts", "forbidden"}. None, which leaves the row out, where it gives None.
    """

    def __init__(self, *, function: Code) -> None:
        self._scorer = _found(function)

    def __call__(self, example: Example, reply: str) -> float | None:
        turns = [{"role": turn.role, "content": turn.content} for turn in example.messages[:-1]]
        expected = {
            "expected_response": example.response,
            "expected_facts": list(example.required),
            "forbidden": list(example.forbidden),
        }
        return _number(self._scorer.run(inputs={"messages": turns}, outputs=reply, expectations=expected))


def _found(dotted: str) -> Any:
    quieten()
    from mlflow.genai.scorers import Scorer

    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"needs function={dotted} to be there ({error}): correct its name, or start where it is"
        ) from error
    if not isinstance(found, Scorer):
        raise ValueError(
            f"needs function={dotted} to be a scorer, got a {type(found).__name__}: write @scorer, of "
            "mlflow.genai.scorers, above it"
        )
    return found


def _number(given: Any) -> float | None:
    from mlflow.entities import Feedback

    if isinstance(given, Feedback):
        if given.error is not None:
            raise ValueError(f"the scorer failed: {given.error}")
        given = given.value
    if isinstance(given, str):
        word = given.strip().lower()
        if word not in _WORDS:
            raise ValueError(f"must give yes or no, a bool or a number, got {given!r}")
        return _WORDS[word]
    return None if given is None else float(given)
