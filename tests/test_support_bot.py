"""The embedded support data set: the same bytes every time, well-formed, diverse, right by its own labels."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from sklearn.feature_extraction.text import TfidfVectorizer

FOLDER = Path(__file__).parents[1] / "data" / "support_bot"
DATA = FOLDER / "support_bot.jsonl"
KEYS = ["id", "messages", "intent", "style", "channel", "customer_group", "fact", "required", "forbidden"]
LABELS = {
    "style": {"formal", "casual", "terse", "angry", "misspelt"},
    "channel": {"chat", "email", "social", "phone"},
    "customer_group": {"new", "regular", "business"},
}
NEAR = 0.8
SECOND_QUESTION = re.compile(
    "second question|separate matter|another thing|also, while|one more thing|like to know|never answer",
    re.IGNORECASE,
)

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def prompts(rows: list[Row]) -> list[str]:
    return ["\n".join(message["content"] for message in row["messages"][:-1]) for row in rows]


@pytest.fixture(scope="module")
def answers(rows: list[Row]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


def mentions(text: str, entry: str) -> bool:
    return any(token in text.lower() for token in entry.lower().split("|"))


def word_count(text: str) -> int:
    return len(text.split())


def vendi_share(texts: Sequence[str], *, sample: int = 500) -> float:
    """exp(entropy of the eigenvalues of K / n) / n, K the TF-IDF cosine kernel. Friedman and Dieng 2023."""
    chosen = random.Random(0).sample(list(texts), sample)
    features = TfidfVectorizer().fit_transform(chosen)
    eigenvalues = np.linalg.eigvalsh((features @ features.T).toarray() / sample)
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()) / sample)


def shingles(text: str) -> set[str]:
    plain = re.sub(r"\s+", " ", text.lower())
    return {plain[at : at + 5] for at in range(max(1, len(plain) - 4))}


def near_duplicates(texts: Sequence[str]) -> int:
    """How many texts have an earlier one within Jaccard 0.8; hashing proposes with slack, sets decide."""
    index = MinHashLSH(threshold=NEAR - 0.1, num_perm=64)
    sets = [shingles(text) for text in texts]
    repeated = 0
    for number, runs in enumerate(sets):
        sketch = MinHash(num_perm=64, seed=1)
        sketch.update_batch([run.encode() for run in sorted(runs)])
        near = (len(runs & sets[at]) / len(runs | sets[at]) for at in index.query(sketch))
        repeated += any(overlap >= NEAR for overlap in near)
        index.insert(number, sketch)
    return repeated


def test_the_script_writes_the_committed_bytes(tmp_path: Path) -> None:
    target = tmp_path / "again.jsonl"
    subprocess.run([sys.executable, "-B", "-W", "error", str(FOLDER / "make.py"), str(target)], check=True)
    assert target.read_bytes() == DATA.read_bytes()


def test_there_are_enough_rows_with_ids_in_order(rows: list[Row]) -> None:
    assert len(rows) >= 2_200
    assert [row["id"] for row in rows] == [f"sb-{number:05d}" for number in range(1, len(rows) + 1)]


def test_every_row_follows_the_schema(rows: list[Row]) -> None:
    for row in rows:
        assert list(row) == KEYS
        for key, allowed in LABELS.items():
            assert row[key] in allowed
        assert re.fullmatch(r"[a-z_]+", row["intent"])
        assert (row["fact"] is None) == (row["intent"] == "out_of_scope")
        assert 1 <= len(row["required"]) <= 3
        assert all(isinstance(entry, str) and entry for entry in [*row["required"], *row["forbidden"]])


def test_turns_alternate_and_end_with_the_answer(rows: list[Row]) -> None:
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(list(message) == ["role", "content"] for message in row["messages"])
        assert all(message["content"].strip() == message["content"] != "" for message in row["messages"])


def test_no_slot_or_broken_article_is_left(rows: list[Row]) -> None:
    broken = re.compile(r"\ba [aeio]|\ban (?![aeiouhEMx])|\b(\w+) \1\b")
    for row in rows:
        for message in row["messages"]:
            assert not re.search(r"[{}]|  ", message["content"]), row["id"]
            if message["role"] == "assistant" or row["style"] != "misspelt":
                assert not broken.search(message["content"]), row["id"]


def test_no_row_holds_an_address_or_a_link(rows: list[Row]) -> None:
    text = "\n".join(message["content"] for row in rows for message in row["messages"])
    assert not re.search(r"\w@\w+\.\w|https?:|www\.|\+\d{2}|\d{9,}", text)


def test_about_an_eighth_of_the_rows_has_several_turns(rows: list[Row]) -> None:
    assert 0.09 <= np.mean([len(row["messages"]) > 2 for row in rows]) <= 0.16


def test_each_reference_answer_is_right_by_its_own_labels(rows: list[Row], answers: list[str]) -> None:
    for row, answer in zip(rows, answers, strict=True):
        assert all(mentions(answer, entry) for entry in row["required"]), row["id"]
        assert not any(mentions(answer, entry) for entry in row["forbidden"]), row["id"]


def test_most_rows_name_what_would_be_wrong(rows: list[Row]) -> None:
    assert np.mean([bool(row["forbidden"]) for row in rows]) > 0.5


def test_texts_are_short_enough_for_two_cores(prompts: list[str], answers: list[str]) -> None:
    assert 26 <= np.mean([word_count(text) for text in answers]) <= 40
    assert max(word_count(text) for text in answers) <= 75
    assert 12 <= np.mean([word_count(text) for text in prompts]) <= 26
    assert max(word_count(text) for text in prompts) <= 100


def test_near_duplicates_are_rare(prompts: list[str], answers: list[str]) -> None:
    pairs = [f"{prompt}\n{answer}" for prompt, answer in zip(prompts, answers, strict=True)]
    assert near_duplicates(pairs) <= 0.10 * len(pairs)


def test_answers_and_prompts_are_each_diverse(prompts: list[str], answers: list[str]) -> None:
    assert vendi_share(answers) >= 0.22
    assert vendi_share(prompts) >= 0.22


def test_answers_do_not_repeat_themselves(answers: list[str]) -> None:
    shuffled = random.Random(1).sample(answers, len(answers))
    text = "\n".join(shuffled)
    raw = text.encode()[:20_000]
    assert len(raw) / len(gzip.compress(raw)) <= 5
    words = text.lower().split()[:4_000]
    assert len(set(itertools.pairwise(words))) / (len(words) - 1) >= 0.30
    assert len(set(answers)) / len(answers) > 0.85
    openings = Counter(" ".join(answer.split()[:3]) for answer in answers)
    assert openings.most_common(1)[0][1] / len(answers) <= 0.25


def test_every_intent_and_label_is_well_covered(rows: list[Row]) -> None:
    intents = Counter(row["intent"] for row in rows)
    assert sum(count >= 40 for count in intents.values()) >= 25
    assert len({row["fact"] for row in rows if row["fact"]}) >= 70
    for key, allowed in LABELS.items():
        shares = Counter(row[key] for row in rows)
        assert all(shares[label] >= 0.05 * len(rows) for label in allowed), shares


def test_every_edge_case_is_at_least_one_row_in_a_hundred(rows: list[Row]) -> None:
    firsts = [row["messages"][0]["content"] for row in rows]
    correct = {
        word for row in rows if row["style"] != "misspelt" for message in row["messages"]
        for word in re.findall(r"[a-z]+", message["content"].lower())
    }  # fmt: skip
    shares = {
        "very short": np.mean([word_count(text) <= 4 for text in firsts]),
        "very long": np.mean([word_count(text) >= 50 for text in firsts]),
        "typos": np.mean([bool(set(re.findall(r"[a-z]+", text.lower())) - correct) for text in firsts]),
        "out of scope": np.mean([row["intent"] == "out_of_scope" for row in rows]),
        "angry": np.mean([row["style"] == "angry" for row in rows]),
        "several intents": np.mean(
            [
                len(row["required"]) > 1 and bool(SECOND_QUESTION.search(text))
                for row, text in zip(rows, firsts, strict=True)
            ]
        ),
    }
    assert all(share >= 0.01 for share in shares.values()), shares
