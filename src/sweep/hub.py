"""The Hugging Face hub, asked once: libraries ask for half a minute before they say that it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sweep.errors import SweepError


def require(
    repository: str, kind: Literal["model", "dataset"], *, refusal: type[SweepError], key: str
) -> None:
    """Nothing, if the hub hands the repository out or a copy is on this machine.

    Raises `refusal` with why not and what to do; `key` is the configuration path that names it.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    copies = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}" / "snapshots"
    if copies.is_dir():
        return
    try:
        validate_repo_id(repository)
        HfApi().auth_check(repository, repo_type=kind)
    except Exception as error:
        raise refusal(f"{key}={repository}: {explain(error, repository)}") from error


def explain(error: BaseException, repository: str) -> str:
    """Why the hub did not hand a repository out, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return (
            f"its owner hands it out on terms. Accept them at {constants.ENDPOINT}/{repository}, then sign "
            "in with `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the hub has nothing of that name, or only for its members. Check the spelling, or sign in with "
            "`hf auth login`."
        )
    if isinstance(error, HFValidationError):
        return "is neither a folder here nor the form of a hub id, organisation/name. Correct it."
    return (
        f"the hub gives no answer ({type(error).__name__}: {error}), and no copy is on this machine. Connect "
        "to it, or download the repository elsewhere and name its folder or file."
    )
