"""A storage whose process dies at its n-th write, and a driver that goes on all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.storages import InMemoryStorage

from sweep.search.study import Study


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class DyingStorage(InMemoryStorage):
    """A disk that survives a process which dies at its n-th write."""

    writes_left = 10**9

    def _write(self) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise Killed

    def create_new_study(self, *args: Any, **kwargs: Any) -> int:
        self._write()
        return super().create_new_study(*args, **kwargs)

    def set_study_user_attr(self, *args: Any, **kwargs: Any) -> None:
        self._write()
        super().set_study_user_attr(*args, **kwargs)

    def set_study_system_attr(self, *args: Any, **kwargs: Any) -> None:
        self._write()
        super().set_study_system_attr(*args, **kwargs)

    def create_new_trial(self, *args: Any, **kwargs: Any) -> int:
        self._write()
        return super().create_new_trial(*args, **kwargs)

    def set_trial_param(self, *args: Any, **kwargs: Any) -> None:
        self._write()
        super().set_trial_param(*args, **kwargs)

    def set_trial_state_values(self, *args: Any, **kwargs: Any) -> bool:
        self._write()
        return super().set_trial_state_values(*args, **kwargs)

    def set_trial_intermediate_value(self, *args: Any, **kwargs: Any) -> None:
        self._write()
        super().set_trial_intermediate_value(*args, **kwargs)

    def set_trial_user_attr(self, *args: Any, **kwargs: Any) -> None:
        self._write()
        super().set_trial_user_attr(*args, **kwargs)

    def set_trial_system_attr(self, *args: Any, **kwargs: Any) -> None:
        self._write()
        super().set_trial_system_attr(*args, **kwargs)


def survived(
    begin: Callable[[DyingStorage], Study], *, first: int, then: int = 11
) -> tuple[Study, DyingStorage]:
    """The study that comes to its end all the same, and its storage, which dies no more.

    begin: opens and runs it; killed after `first` writes, and after `then` more each time.
    """
    disk = DyingStorage()
    writes = first
    for _ in range(200):
        disk.writes_left = writes
        try:
            study = begin(disk)
        except Killed:
            writes = then
        else:
            disk.writes_left = 10**9
            return study, disk
    raise AssertionError("killed 200 times, and still not at its end")
