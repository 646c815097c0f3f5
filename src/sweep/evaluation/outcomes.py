"""What became of each ticket: resolved, handed over to a person, or answered wrongly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sweep.data.audit.privacy import told
from sweep.data.example import Example
from sweep.errors import ConfigError
from sweep.evaluation.calibration import Learnt, Raw, calibrate, read_labels
from sweep.evaluation.scorers import FACTS, Scorer, scores
from sweep.types import Reply


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How replies are told apart.

    escalation: regular expressions of which one is found, in any case, in a reply that hands over to a
    person. proxy: the scorer that judges rows without phrases, None where all have some. labels: a file of
    what people said of replies, see `read_labels`, None for none.
    """

    escalation: tuple[str, ...]
    proxy: str | None
    labels: str | None

    def __post_init__(self) -> None:
        for at, pattern in enumerate(self.escalation):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"objective.escalation[{at}]: {pattern!r} must be a regular expression: {error}. "
                    "Change it."
                ) from error


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row's ticket after the reply. resolved, escalated, wrong: probabilities, together 1.

    scores: by scorer, without those that can't score the row. leaks: the reply tells who somebody is, and
    neither the conversation nor the reference answer says it. calibrated: `resolved` is a fact or was
    learnt from labels. seconds, prompt_tokens, tokens: as in `Reply`.
    """

    row: str
    resolved: float
    escalated: float
    wrong: float
    scores: Mapping[str, float]
    leaks: bool
    calibrated: bool
    seconds: float
    prompt_tokens: int
    tokens: int
    slices: Mapping[str, str]


class Judge:
    """Replies into outcomes, by the same calibration for all models.

    known: rows of any split, which labels may name, and whose first ones show what a random answer scores.
    """

    def __init__(self, rules: Rules, scorers: Mapping[str, Scorer], known: Sequence[Example]) -> None:
        self._rules = rules
        self._scorers = scorers
        self._known = known
        self._hands_over = [re.compile(pattern, re.IGNORECASE) for pattern in rules.escalation]

    def outcomes(self, examples: Sequence[Example], replies: Sequence[Reply]) -> tuple[Outcome, ...]:
        """One outcome for each example, in that order.

        A row is resolved as far as the scorer `facts` says so. Where that gives nothing, the proxy's score
        becomes a probability. Raises ValueError unless each row has one reply, ConfigError where nothing
        says whether a row is resolved.
        """
        by_row = {reply.row: reply for reply in replies}
        rows = [example.id for example in examples]
        if Counter(rows) != Counter(reply.row for reply in replies):
            odd = sorted(by_row.keys() ^ set(rows)) or sorted(rows)
            raise ValueError(
                f"{len(rows)} rows and {len(replies)} replies, such as {odd[0]!r}; each row must have one "
                "reply. Ask for all rows once."
            )
        ordered = [by_row[row] for row in rows]
        table = scores(self._scorers, examples, [reply.text for reply in ordered])
        return tuple(map(self._outcome, examples, ordered, table))

    def _outcome(self, example: Example, reply: Reply, given: Mapping[str, float]) -> Outcome:
        resolved = given[FACTS] if FACTS in given else self._probability(example, given)
        line = " ".join(reply.text.split())
        handed_over = any(pattern.search(line) for pattern in self._hands_over)
        known = {what for turn in example.messages for _, what in told(turn.content)}
        return Outcome(
            row=example.id,
            resolved=resolved,
            escalated=1 - resolved if handed_over else 0.0,
            wrong=0.0 if handed_over else 1 - resolved,
            scores=given,
            leaks=any(what not in known for _, what in told(reply.text)),
            calibrated=FACTS in given or self._calibration.calibrated,
            seconds=reply.seconds,
            prompt_tokens=reply.prompt_tokens,
            tokens=reply.tokens,
            slices=example.slices,
        )

    def _probability(self, example: Example, given: Mapping[str, float]) -> float:
        proxy = self._rules.proxy
        if proxy is None or proxy not in given:
            why = "is null" if proxy is None else f"={proxy} gives no number for it"
            raise ConfigError(
                f"objective.proxy: row {example.id!r} has no phrases to be judged by, and objective.proxy "
                f"{why}. Set objective.proxy=chrf, or give data.required_column."
            )
        return self._calibration(given[proxy])

    @cached_property
    def _calibration(self) -> Learnt | Raw:
        assert self._rules.proxy is not None
        scorer = self._scorers[self._rules.proxy]
        path = self._rules.labels
        by_id = {example.id: example for example in self._known}
        labels = [] if path is None else read_labels(Path(path).expanduser(), scorer, by_id)
        return calibrate(labels, scorer, self._known)
