from collections.abc import Iterator

import pytest

from sweep import redaction


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test's configuration held is no secret of the next one's."""
    before = set(redaction._remembered)
    yield
    redaction._remembered.intersection_update(before)
