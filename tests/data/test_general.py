from __future__ import annotations

from sweep.data.general import general_passages


def test_the_general_passages_are_some_forty_whole_distinct_texts():
    passages = general_passages()
    assert len(passages) == 40
    assert len({passage.id for passage in passages}) == len({passage.text for passage in passages}) == 40
    assert all(20 <= len(passage.text.split()) <= 60 for passage in passages)
    assert all(passage.text[0].isupper() and passage.text.endswith(".") for passage in passages)
    assert not any("Fernhill" in passage.text for passage in passages)
