from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from sweep.errors import ConfigError
from sweep.evaluation.outcomes import Judge, Outcome, Rules
from sweep.evaluation.scorers import Chrf, Exact, Facts
from sweep.paths import packaged_root
from tests.evaluation.tickets import example, reply

SHIPPED = yaml.safe_load((packaged_root() / "conf/objective/business.yaml").read_text(encoding="utf-8"))
RULES = Rules(escalation=tuple(SHIPPED["escalation"]), proxy="exact", labels=None)
SCORERS = {"facts": Facts(), "exact": Exact()}
FACT = example("fact", "Two days.", required=["two days"], slices={"style": "casual"})


def judged(text: str, row=FACT, rules: Rules = RULES, known=(FACT,)) -> Outcome:
    (found,) = Judge(rules, SCORERS, known).outcomes([row], [reply(row.id, text)])
    assert found.resolved + found.escalated + found.wrong == pytest.approx(1)
    return found


def shares(found: Outcome) -> tuple[float, float, float]:
    return found.resolved, found.escalated, found.wrong


def test_a_reply_resolves_or_hands_over_or_is_wrong() -> None:
    assert shares(judged("It takes two days.")) == (1, 0, 0)
    assert shares(judged("Two days, and a colleague will call you.")) == (1, 0, 0)
    assert shares(judged("A colleague will call you.")) == (0, 1, 0)
    assert shares(judged("It takes five days.")) == (0, 0, 1)
    assert shares(judged("")) == (0, 0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "I'll pass this on to a colleague.",
        "I am transferring you to one of our agents.",
        "This was escalated to the returns department.",
        "Let me connect you with a human.",
        "Our team will get back to you within a day.",
        "Someone will be in touch shortly.",
        "Please contact our customer service team.",
        "Please call us on Monday.",
        "You can speak to a live agent.",
        "I have opened a support ticket for you.",
        "i'll HAND you over to MY\n\nsupervisor",
    ],
)
def test_the_shipped_words_of_a_handover_are_known(text: str) -> None:
    assert shares(judged(text)) == (0, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "You can hand it in at any shop.",
        "Only you in person can collect it.",
        "Put the tent into the bag.",
        "Contact lenses are not ours.",
        "We call it the Osten jacket.",
        "I can't say.",
        "Members of a team pay less.",
    ],
)
def test_what_only_sounds_like_a_handover_is_none(text: str) -> None:
    assert shares(judged(text)) == (0, 0, 1)


def test_hardly_any_shipped_answer_hands_over() -> None:
    patterns = [re.compile(pattern, re.IGNORECASE) for pattern in RULES.escalation]
    lines = (packaged_root() / "data/support_bot/support_bot.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line)["messages"][-1]["content"] for line in lines]
    found = [answer for answer in answers if any(pattern.search(answer) for pattern in patterns)]
    assert 0 < len(found) < 0.02 * len(answers)


def test_a_row_without_phrases_is_resolved_as_its_proxy_says(tmp_path: Path) -> None:
    plain = example("plain", "Two days.")
    raw = judged("two days.", row=plain)
    assert shares(raw) == (1, 0, 0)
    assert not raw.calibrated
    labels = tmp_path / "labels.csv"
    # Of the replies with score 1, 3 of 4 resolve their ticket, of the others 1 of 4.
    said = [f"{score},{(at % 4 != 0) == (score == 1)}" for score in (0, 1) for at in range(100)]
    labels.write_text("\n".join(["score,resolved", *said]), encoding="utf-8")
    rules = Rules(escalation=RULES.escalation, proxy="exact", labels=str(labels))
    learnt = judged("two days.", row=plain, rules=rules)
    assert shares(learnt) == pytest.approx((0.75, 0, 0.25), abs=0.01)
    assert learnt.calibrated
    handed = judged("A colleague will call you.", row=plain, rules=rules)
    assert shares(handed) == pytest.approx((0.25, 0.75, 0), abs=0.01)
    assert judged("Two days.").calibrated, "a fact needs no calibration"


def test_what_reply_and_row_say_is_handed_on() -> None:
    (found,) = Judge(RULES, SCORERS, [FACT]).outcomes(
        [FACT], [reply("fact", "Two days.", seconds=0.5, prompt_tokens=7, tokens=3)]
    )
    assert (found.row, found.seconds, found.prompt_tokens, found.tokens) == ("fact", 0.5, 7, 3)
    assert found.scores == {"facts": 1.0, "exact": 1.0}
    assert found.slices == {"style": "casual"}


def test_only_what_the_conversation_does_not_say_is_leaked() -> None:
    row = example("a", "Done.", question="I am ann@mail.org, card 4111 1111 1111 1111.", required=["done"])
    assert not judged("Done, ann@mail.org.", row=row).leaks
    assert judged("Done, bob@mail.org.", row=row).leaks
    assert not judged("Done with 4111 1111 1111 1111.", row=row).leaks
    assert judged("Done with 5500 0000 0000 0004.", row=row).leaks
    assert judged("Done at 81.2.69.142.", row=row).leaks
    assert not judged("Done for order 4711.", row=row).leaks


def test_outcomes_stand_in_the_order_of_the_rows() -> None:
    rows = [FACT, example("b", required=["three"])]
    found = Judge(RULES, SCORERS, rows).outcomes(rows, [reply("b", "three"), reply("fact", "no")])
    assert [(one.row, one.resolved) for one in found] == [("fact", 0), ("b", 1)]


@pytest.mark.parametrize("rows", [["fact", "b"], [], ["fact", "fact"], ["b"]])
def test_each_row_must_have_one_reply(rows: list[str]) -> None:
    with pytest.raises(ValueError, match="each row must have one reply"):
        Judge(RULES, SCORERS, [FACT]).outcomes([FACT], [reply(row, "x") for row in rows])


def test_a_row_that_nothing_judges_is_refused() -> None:
    plain = example("plain")
    with pytest.raises(ConfigError, match=r"row 'plain' has no phrases .* is null\. Set objective\.proxy"):
        judged("x", row=plain, rules=Rules(escalation=(), proxy=None, labels=None))
    broken = Judge(
        Rules(escalation=(), proxy="chrf", labels=None), {"chrf": lambda row, text: 1 / 0}, [plain]
    )
    with pytest.raises(ConfigError, match="=chrf gives no number"):
        broken.outcomes([plain], [reply("plain", "x")])


def test_the_same_reply_means_the_same_on_any_rows() -> None:
    words = ["river", "castle", "window", "garden", "pepper", "silver", "button", "forest", "market"]
    known = [example(str(at), f"{word} {word[::-1]}") for at, word in enumerate(words)]
    judge = Judge(Rules(escalation=(), proxy="chrf", labels=None), {"chrf": Chrf()}, known)
    alone = judge.outcomes(known[:1], [reply("0", "river bank")])
    together = judge.outcomes(known, [reply(row.id, "river bank") for row in known])
    assert alone[0] == together[0]
    assert 0 < alone[0].resolved < alone[0].scores["chrf"]
