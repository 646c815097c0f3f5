"""A checkpoint is whole or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.engines import checkpoint
from sweep.errors import CheckpointError


@pytest.fixture
def written(tmp_path: Path) -> Path:
    target = tmp_path / "96"
    with checkpoint.writing(target) as aside:
        (aside / "weights").write_bytes(b"\x00\x01\x02\x03")
    return target


def test_what_was_written_is_found_whole(written: Path) -> None:
    assert (checkpoint.verified(written) / "weights").read_bytes() == b"\x00\x01\x02\x03"


def test_one_flipped_bit_is_found(written: Path) -> None:
    (written / "weights").write_bytes(b"\x00\x01\x02\x07")
    with pytest.raises(CheckpointError, match="weights"):
        checkpoint.verified(written)


def test_truncated_missing_and_absent_are_found(written: Path) -> None:
    (written / "weights").write_bytes(b"\x00")
    with pytest.raises(CheckpointError, match="weights"):
        checkpoint.verified(written)
    (written / "weights").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.verified(written)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoint.verified(written.parent / "nowhere")


def test_an_error_while_writing_leaves_the_older_one(written: Path) -> None:
    def write_half() -> None:
        with checkpoint.writing(written) as aside:
            (aside / "weights").write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        write_half()
    assert (checkpoint.verified(written) / "weights").read_bytes() == b"\x00\x01\x02\x03"
    assert [path.name for path in written.parent.iterdir()] == ["96"]
