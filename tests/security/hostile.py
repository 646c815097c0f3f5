"""What runs code where it is loaded, read, imported or rendered, and leaves a file where it did."""

from __future__ import annotations

import os
from pathlib import Path


class Pickled:
    """Unpickled, it makes the file `ran`, unless a loader takes plain values alone."""

    def __init__(self, ran: Path) -> None:
        self._ran = ran

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._ran),)


def module(ran: Path) -> str:
    """Python that makes the file `ran` when it is imported."""
    return f"import os\nos.mkdir({str(ran)!r})\n\n\nclass Evil: ...\n"
