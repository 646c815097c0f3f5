"""The audit stops a sweep before any weights are loaded, says what lets it pass, and is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from sweep.config import compose
from sweep.data.audit.audit import Audit
from sweep.data.audit.finding import Audited, Limit
from sweep.engines.byte_tokenizer import byte_tokenizer
from sweep.engines.model import Base
from sweep.errors import DataError
from sweep.stages.audit import FILE, audit_data, require_fit
from tests.stages.finished import DATA


@dataclass
class Weightless:
    """A model source that has a tokenizer and no weights. tokenizers: how often it was asked for one."""

    identity: str = "weightless"
    tokenizers: int = 0

    def tokenizer(self) -> PreTrainedTokenizerBase:
        self.tokenizers += 1
        return byte_tokenizer()

    def load(self) -> Base:
        raise AssertionError("the audit needs no weights")


@pytest.fixture(scope="module")
def asked() -> Audit:
    return replace(compose(["+experiment=smoke"]).audit, allow=())


def audited(folder: Path, asked: Audit, model: Weightless | None = None, **given: int) -> Audited:
    options = {"max_tokens": 64, "seed": 0, **given}
    return audit_data(DATA, asked, model or Weightless(), folder=folder, **options)


def test_rows_that_are_not_fit_stop_with_the_reasons_and_the_way_on(tmp_path: Path, asked: Audit) -> None:
    found = audited(tmp_path, asked)
    stopping = [finding.verdict.check for finding in found.stopping]
    assert {"rows", "openings"} <= set(stopping)
    with pytest.raises(DataError) as caught:
        require_fit(found)
    told = str(caught.value)
    assert f"audit.allow=[{','.join(stopping)}]" in told
    assert "  rows: 193 different rows; must be at least 500. Collect more" in told


def test_what_is_allowed_passes_and_no_more(tmp_path: Path, asked: Audit) -> None:
    stopping = tuple(finding.verdict.check for finding in audited(tmp_path, asked).stopping)
    require_fit(audited(tmp_path, replace(asked, allow=stopping)))
    with pytest.raises(DataError) as caught:
        require_fit(audited(tmp_path, replace(asked, allow=stopping[:-1])))
    (reason,) = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert reason.startswith(f"  {stopping[-1]}: ")
    assert f"audit.allow=[{','.join(stopping)}]" in str(caught.value), "what was allowed stays so"


def test_what_was_allowed_is_kept_beside_what_was_found(tmp_path: Path, asked: Audit) -> None:
    audited(tmp_path, replace(asked, allow=("rows", "leaks")))
    kept = json.loads((tmp_path / FILE).read_text())
    assert kept["allowed"] == ["rows", "leaks"]
    failed = {finding["verdict"]["check"] for finding in kept["findings"] if not finding["verdict"]["passed"]}
    assert "rows" in failed


def test_the_same_rows_are_checked_once(tmp_path: Path, asked: Audit) -> None:
    first, model = audited(tmp_path, asked), Weightless()
    assert audited(tmp_path, asked, model) == first
    allowed = audited(tmp_path, replace(asked, allow=("rows",)), model)
    assert model.tokenizers == 0
    assert (allowed.findings, allowed.allowed) == (first.findings, ("rows",))


def test_what_the_checks_hang_on_makes_them_anew(tmp_path: Path, asked: Audit) -> None:
    audited(tmp_path, asked)
    low = replace(asked.limits, rows=Limit(warn=20, error=10))
    model = Weightless()
    found = audited(tmp_path, replace(asked, limits=low), model)
    assert model.tokenizers == 1
    assert "rows" not in {finding.verdict.check for finding in found.failed}
    audited(tmp_path, replace(asked, limits=low), model, max_tokens=32)
    audited(tmp_path, replace(asked, limits=low), model, max_tokens=32, seed=1)
    assert model.tokenizers == 3
    other = Weightless("another")
    audited(tmp_path, replace(asked, limits=low), other, max_tokens=32, seed=1)
    assert other.tokenizers == 1


@pytest.mark.parametrize("content", ["", "[]", '{"key": 1}', '{"findings": [{}], "allowed": []}'])
def test_a_file_that_is_no_audit_is_written_anew(content: str, tmp_path: Path, asked: Audit) -> None:
    (tmp_path / FILE).write_text(content)
    found, model = audited(tmp_path, asked), Weightless()
    assert audited(tmp_path, asked, model) == found
    assert model.tokenizers == 0
