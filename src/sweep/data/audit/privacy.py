"""What the rows tell about people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sweep.data.audit.finding import Finding, Row, judge
from sweep.data.example import Example
from sweep.types import Limit

# Placeholders and documentation's own domains name nobody.
_EMAIL = re.compile(r"\b[\w.+-]+@(?!example\.|test\.)[\w-]+\.[\w.-]*\w", re.ASCII)
# By what the networks hand out: other long numbers are orders and parcels, of which every tenth has a right
# check digit.
_CARD = re.compile(r"(?<![\d-])(?:(?:4|5[1-5]|2[2-7]|6[05])(?:[ -]?\d){14,15}|3[47](?:[ -]?\d){13})(?![\d-])")
_SOCIAL_SECURITY = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_ADDRESS = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\d|\.\d)"
)


def personal_data(examples: Sequence[Example], limit: Limit) -> Finding:
    """The share of rows with an e-mail or IP address, a card's or a US social security number."""
    found = [(row, kinds) for row in examples if (kinds := _kinds(row))]
    share = len(found) / len(examples)
    return judge(
        "personal_data",
        share,
        limit,
        worse="above",
        message=f"{len(found):,} rows hold what tells who somebody is",
        mend="Replace it by placeholders: a model repeats what it has learnt, also to others.",
        # What was found is not shown: reports are passed on.
        rows=[Row(row.id, ", ".join(kinds)) for row, kinds in found],
    )


def told(text: str) -> Iterator[tuple[str, str]]:
    """What tells who somebody is: its kind, and itself as it stands in the text."""
    yield from (("e-mail address", found.group()) for found in _EMAIL.finditer(text))
    cards = (found.group() for found in _CARD.finditer(text))
    yield from (("card number", number) for number in cards if _luhn(number))
    yield from (("social security number", found.group()) for found in _SOCIAL_SECURITY.finditer(text))
    yield from (("IP address", found.group()) for found in _ADDRESS.finditer(text))


def _kinds(row: Example) -> list[str]:
    return sorted({kind for turn in row.messages for kind, _ in told(turn.content)})


def _luhn(number: str) -> bool:
    """Whether the check digit is right. Source: ISO/IEC 7812-1, annex B."""
    digits = [int(sign) for sign in number if sign.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1
