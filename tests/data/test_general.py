from __future__ import annotations

from sweep.data.general import general_examples


def test_the_general_passages_are_some_forty_whole_distinct_texts():
    passages = general_examples()
    assert len(passages) == 40
    assert len({passage.id for passage in passages}) == len({passage.response for passage in passages}) == 40
    assert all(20 <= len(passage.response.split()) <= 60 for passage in passages)
    assert all(passage.response[0].isupper() and passage.response.endswith(".") for passage in passages)
    assert not any("Fernhill" in passage.response for passage in passages)
    assert {tuple(turn.role for turn in passage.messages) for passage in passages} == {("user", "assistant")}
