"""What every engine that can answer promises; `Adapted` holds those to it that train a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweep.data.encode import Encoded, encode, prompt_text
from sweep.data.example import Message
from sweep.engines import generate
from sweep.engines.inputs import Inputs
from sweep.engines.model import Base, describe, load_with_adapter
from sweep.search.loop import Jobs
from sweep.types import Asking, Engine, Job, Probe, Prompt, Report, View
from tests.contracts.engine import RECIPE, Made, job, reports

PROBE = Probe(train=View("train", 6), held_out=View("confirm", 5), continued=4)


def asking(inputs: Inputs, rows: int = 10, most: int = 8) -> Asking:
    """The confirm and test rows' own prompts, then one of several turns."""
    given = (*inputs.data.examples["confirm"], *inputs.data.examples["test"])[: rows - 1]
    prompts = [
        Prompt(row.id, tuple((turn.role, turn.content) for turn in row.messages[:-1])) for row in given
    ]
    turns = (("system", "be brief"), ("user", "how long?"), ("assistant", "very"), ("user", "how very?"))
    return Asking((*prompts, Prompt("several", turns)), most)


class AnswersContract(Made):
    """Give `make_engine`."""

    def test_replies_and_probes_come_in_the_order_asked(self, inputs: Inputs, engine: Engine) -> None:
        asked = asking(inputs)
        plain, report = reports(
            engine, job(0, 8, trial="plain"), replace(job(0, 8, trial="asked"), asked=asked, probe=PROBE)
        )
        assert (plain.replies, plain.probed) == ((), ())
        assert [reply.row for reply in report.replies] == [prompt.row for prompt in asked.prompts]
        assert all(0 <= reply.tokens <= asked.max_tokens for reply in report.replies)
        train, confirm = inputs.data.examples["train"], inputs.data.examples["confirm"]
        seen = [train[row].id for row in first_seen(len(train), 6)]
        rows = [*((row, "train") for row in seen), *((row.id, "confirm") for row in confirm[:5])]
        assert [(probe.row, probe.split) for probe in report.probed] == rows
        continued = [probe.verbatim is not None for probe in report.probed]
        assert continued == [True] * 4 + [False] * 2 + [True] * 4 + [False]

    def test_no_row_is_probed_as_trained_that_the_trial_has_not_come_to(
        self, inputs: Inputs, engine: Engine
    ) -> None:
        whole = PROBE._replace(train=View("train"))
        few, all_of_them = reports(
            engine, *(replace(job(0, stop, trial=str(stop), horizon=80), probe=whole) for stop in (8, 80))
        )
        train = inputs.data.examples["train"]
        seen = [train[row].id for row in first_seen(len(train), 8)]
        assert [row.row for row in few.probed if row.split == "train"] == seen
        assert {row.row for row in all_of_them.probed if row.split == "train"} == {row.id for row in train}

    def test_the_same_job_is_answered_alike_and_scored_as_if_nothing_was_asked(
        self, inputs: Inputs, engine: Engine
    ) -> None:
        asked = replace(job(0, 16), asked=asking(inputs), probe=PROBE)
        plain, first, second = (reports(engine, one)[0] for one in (job(0, 16), asked, asked))
        assert first.rows == second.rows == plain.rows
        assert first.probed == second.probed
        texts = [[reply.text for reply in report.replies] for report in (first, second)]
        assert texts[0] == texts[1]

    def test_who_diverges_is_not_asked(self, inputs: Inputs, engine: Engine) -> None:
        wild = replace(RECIPE, learning_rate=1e6, max_gradient_norm=1e9, warmup_fraction=0.0)
        (report,) = reports(engine, replace(job(recipe=wild), asked=asking(inputs), probe=PROBE))
        assert report.state == "diverged"
        assert (report.replies, report.probed) == ((), ())

    def test_answering_takes_part_in_the_jobs_seconds(self, inputs: Inputs, engine: Engine) -> None:
        (report,) = reports(engine, replace(job(0, 8), asked=asking(inputs, most=24)))
        assert report.seconds > max(reply.seconds for reply in report.replies) > 0.0


class Adapted(AnswersContract):
    """Engines that train a model, the tiny one of the tests, whose tokenizer makes a token of a byte."""

    def test_the_base_model_answers_where_nothing_was_trained(self, inputs: Inputs, engine: Engine) -> None:
        asked = asking(inputs)
        (report,) = reports(engine, replace(job(0, 0), asked=asked))
        assert [reply.text for reply in report.replies] == texts_of(inputs.model.load(), asked)

    def test_a_trained_trial_answers_as_its_adapter_does_in_peft(
        self, inputs: Inputs, engine: Engine
    ) -> None:
        """Two trials in turn and the first again by its checkpoint: the base must be free of either."""
        asked = asking(inputs)
        strong = replace(RECIPE, learning_rate=0.02, lora_alpha=64.0)
        jobs = [
            replace(job(0, 48, trial=name, recipe=recipe), asked=asked, probe=PROBE)
            for name, recipe in (("a", strong), ("b", replace(strong, lora_rank=2, learning_rate=0.01)))
        ]
        first, second = reports(engine, *jobs)
        again, base = reports(
            engine,
            replace(jobs[0], id="again", start=48, checkpoint=first.checkpoint),
            replace(job(0, 0, trial="base"), asked=asked),
        )
        untrained = [reply.text for reply in base.replies]
        assert untrained == texts_of(inputs.model.load(), asked)
        found = [[reply.text for reply in report.replies] for report in (first, second, again)]
        assert found[0] != found[1]
        assert untrained not in found
        assert found[2] == found[0]
        assert [probe.nats for probe in again.probed] == pytest.approx([probe.nats for probe in first.probed])
        for report, texts in zip((first, second), found, strict=False):
            adapted = load_with_adapter(describe(inputs.model), Path(report.checkpoint or ""))
            assert texts == texts_of(adapted, asked)

    def test_probes_are_those_of_the_adapter_row_by_row(self, inputs: Inputs, engine: Engine) -> None:
        strong = replace(RECIPE, learning_rate=0.02, lora_alpha=64.0)
        (report,) = reports(engine, replace(job(0, 72, recipe=strong), probe=PROBE))
        adapted = load_with_adapter(describe(inputs.model), Path(report.checkpoint or ""))
        train = inputs.data.examples["train"]
        seen = [train[row] for row in first_seen(len(train), 6)]
        given = [*seen, *inputs.data.examples["confirm"][:5]]
        rows = encode(given, adapted.tokenizer, max_tokens=inputs.max_tokens)
        untrained = inputs.model.load()
        for probe, row in zip(report.probed, rows, strict=True):
            likely = likelihoods(adapted, row)
            assert probe.tokens == len(likely)
            assert probe.nats == pytest.approx(-math.fsum(likely), rel=1e-4)
            assert probe.min_k == pytest.approx(least_likely(likely), rel=1e-4)
            assert probe.base_min_k == pytest.approx(least_likely(likelihoods(untrained, row)), rel=1e-4)
        trained, before = ([getattr(one, name) for one in report.probed] for name in ("min_k", "base_min_k"))
        assert trained != pytest.approx(before, rel=0.01)

    def test_a_job_cancelled_while_it_answers_keeps_its_training(
        self, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sweep.engines.generate._TOKENS", {"cpu": 1, "cuda": 1})
        source = CancelledWhileAnswering([replace(job(0, 8, trial="cut"), asked=asking(inputs))], monkeypatch)
        engine = self.make_engine(inputs)
        *_, report = engine.run(source)
        assert isinstance(report, Report)
        assert (report.state, report.examples_seen, report.replies) == ("stopped", 8, ())
        assert source.written == 3
        (scored,) = reports(engine, job(8, 8, checkpoint=report.checkpoint, trial="cut"))
        assert scored.state == "reached"
        engine.close()


class CancelledWhileAnswering(Jobs):
    """Cancels what is out once three batches of replies are written."""

    def __init__(self, jobs: Sequence[Job], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(jobs)
        self.written = 0
        batch = generate._batch

        def counted(*given: Any) -> Any:
            self.written += 1
            return batch(*given)

        monkeypatch.setattr(generate, "_batch", counted)

    def cancelled(self) -> frozenset[str]:
        if self.written == 3:
            self.interrupt()
        return super().cancelled()


def first_seen(rows: int, count: int) -> list[int]:
    """The rows that the contract's trial trains on first: of a permutation drawn by its seed and epoch 0."""
    return np.random.default_rng([7, 0]).permutation(rows)[:count].tolist()  # type: ignore[no-any-return]


def texts_of(base: Base, asked: Asking) -> list[str]:
    """By transformers' `generate`, prompt by prompt."""
    found = []
    for prompt in asked.prompts:
        turns = tuple(Message(role=role, content=content) for role, content in prompt.turns)  # type: ignore[arg-type]
        text = prompt_text(turns, base.tokenizer)
        encoded = base.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        written: Any = base.model.generate(  # type: ignore[operator]
            input_ids=encoded.input_ids,
            attention_mask=encoded.attention_mask,
            max_new_tokens=asked.max_tokens,
            do_sample=False,
            pad_token_id=base.tokenizer.pad_token_id,
            eos_token_id=base.tokenizer.eos_token_id,
        )
        new = written[0, encoded.input_ids.shape[1] :]
        found.append(str(base.tokenizer.decode(new, skip_special_tokens=True)).strip())
    return found


def least_likely(likely: Sequence[float]) -> float:
    """The mean of the least fifth, one at least."""
    least = sorted(likely)[: max(1, len(likely) // 5)]
    return math.fsum(least) / len(least)


def likelihoods(base: Base, row: Encoded) -> list[float]:
    """The log-probability of each token of the row's response."""
    ids = torch.as_tensor(row.input_ids).long()[None]
    with torch.no_grad():
        shares = base.model(input_ids=ids).logits[0].double().log_softmax(dim=-1)
    return [float(shares[at - 1, ids[0, at]]) for at in range(row.response_start, ids.shape[1])]
