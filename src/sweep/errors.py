"""What a person can mend, as exceptions; what a trial suffers is a failed `Report`, never one of these.

SweepError
├── ConfigError      a configuration file or an override
│   └── SpaceError   the search space
├── DataError        the data set: unreadable, wrong columns, too small
├── ModelError       the base model: absent, of the wrong kind, unsafe to load
├── StudyError       the study on disk: another fingerprint, in use, unreadable
│   └── OutageError  its database does not answer, which may pass
├── TrainingError    training, or the scoring of what was trained, that came to no end
└── CheckpointError  a checkpoint whose files do not match their checksums
"""

from __future__ import annotations

import errno


class SweepError(Exception):
    """What was given, what must hold, what to do. Commands print it and exit with status 2."""


class ConfigError(SweepError):
    """A configuration file or an override holds something it must not."""


class SpaceError(ConfigError):
    """The search space contradicts itself or the recipe."""


class DataError(SweepError):
    """The data set can't be read or does not hold what training needs."""


class ModelError(SweepError):
    """The base model can't be had or is of a kind that can't be trained."""


class StudyError(SweepError):
    """The study on disk can't be continued as asked."""


class OutageError(StudyError):
    """The study's database does not answer now. reason: its own or its driver's words."""

    def __init__(self, reason: str, waited: str = "") -> None:
        super().__init__(
            f"storage: the study's database can't be reached{waited}: {reason}. Start it, or mend the way to "
            "it, then start the same command again: it goes on with what is stored."
        )
        self.reason = reason


class TrainingError(SweepError):
    """Training, or the scoring of what was trained, came to no end."""


class CheckpointError(SweepError):
    """A checkpoint's files do not match their checksums."""


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk had no room left, or none that this user may take."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
