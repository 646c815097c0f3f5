"""An engine and a sampler that are given secrets and tell them wherever they can."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping

from optuna.samplers import TPESampler

from sweep.engines.inputs import Inputs
from sweep.engines.synthetic import Synthetic
from sweep.types import Job, Progress, Report, Source

ENVIRONMENT = {
    "HF_TOKEN": "hf_plantedplantedplanted",
    "OPENAI_API_KEY": "sk-planted-0123456789",
    "MLFLOW_TRACKING_TOKEN": "planted.tracking.token",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+key",
    "DB_PASS": "planted&db pass",
    "CACHE_URL": "redis://me:planted-in-a-url@host/0",
}
HEADER = "planted-header"
KEY = "planted-sampler-key"
PLANTED = (
    *(secret for name, secret in ENVIRONMENT.items() if name != "CACHE_URL"),
    "planted-in-a-url",
    HEADER,
    KEY,
)


class Spilling(Synthetic):
    """Of its trials the second one fails, and says all that it knows; the third breaks its worker."""

    def __init__(self, *, inputs: Inputs, headers: Mapping[str, str]) -> None:
        super().__init__(inputs=inputs, noise=0.01)
        known = [os.environ.get(name) for name in ENVIRONMENT]
        self._known = f"{dict(headers)}, {headers['Authorization']}, {known}"

    def _train(self, job: Job, source: Source) -> Iterator[Progress | Report]:
        logging.getLogger("sweep.engines").warning("asked with %s", self._known)
        warnings.warn(f"warned of {self._known}", stacklevel=1)
        if job.trial.number == 1:
            error = f"refused: {self._known}"
            yield self._report(job, state="failed", examples=job.start, error=error)
        elif job.trial.number == 2:
            raise LookupError(f"no access with {self._known}")
        else:
            yield from super()._train(job, source)


class Sampler(TPESampler):
    """Ends the search with its key where it `breaks`."""

    def __init__(self, *, seed: int, api_key: str, breaks: bool) -> None:
        super().__init__(seed=seed)
        self._key, self._breaks = api_key, breaks

    def before_trial(self, *given: object) -> None:
        if self._breaks:
            raise LookupError(f"no access with {self._key}")
