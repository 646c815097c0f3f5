"""Which texts are most like a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from sweep.data.split import normalised

# Intent agreement of the nearest prompt on two support sets, held-out prompts grouped: words to triples with
# pieces of 2 to 4 characters 0.954 and 0.781; words and pairs alone 0.923, 0.760; pieces alone 0.954, 0.754.
_WORDS = (1, 3)
_PIECES = (2, 4)
# Rows that stand for all where each is compared with each.
_SAMPLE = 1000
# Equal likenesses differ in their last bits by the order in which they are summed.
_DIGITS = 9

Floats = npt.NDArray[np.float64]


class Retriever:
    """Texts by likeness: the cosine of TF-IDF weights of words, their pairs and triples, and pieces of words.

    Case doesn't count, and every number is the same. Deterministic; of equally like texts the first wins.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        words = CountVectorizer(ngram_range=_WORDS).build_analyzer()
        pieces = CountVectorizer(analyzer="char_wb", ngram_range=_PIECES).build_analyzer()
        self._vectors = TfidfVectorizer(
            analyzer=lambda text: [*words(text), *pieces(text)], sublinear_tf=True
        )
        self._weights: Any = self._vectors.fit_transform(map(normalised, texts)).tocsr()
        self._by_term = self._weights.T.tocsr()

    def nearest(self, query: str, k: int) -> list[int]:
        """The places of the `k` texts most like the query, or of all if there are fewer, best first."""
        likeness = (self._vectors.transform([normalised(query)]) @ self._by_term).toarray()[0]
        return [int(place) for place in _largest(likeness)[:k]]

    def central(self) -> int:
        """The place of the text with the highest mean likeness to the others."""
        # Its likeness to itself is 1 for each, so the sum over all texts ranks them alike.
        mean = np.asarray(self._weights.mean(axis=0)).ravel()
        return int(_largest(self._weights @ mean)[0])

    def covering(self, k: int, among: Sequence[int], *, seed: int) -> list[int]:
        """The places of `k` texts of `among` by which any text has one much like it, the most telling first.

        Beyond 1,000 texts, seeded samples stand for both. Greedy choice for facility location.
        Source: Nemhauser, Wolsey, Fisher 1978, doi:10.1007/BF01588971.
        """
        draw = np.random.default_rng(seed)
        places = np.asarray(among)[np.sort(draw.permutation(len(among))[:_SAMPLE])]
        rows = np.sort(draw.permutation(self._weights.shape[0])[:_SAMPLE])
        likeness = (self._weights[rows] @ self._weights[places].T).toarray()
        covered = np.zeros(rows.size)
        chosen: list[int] = []
        for _ in range(min(k, places.size)):
            gained = np.maximum(likeness, covered[:, None]).sum(axis=0)
            gained[chosen] = -np.inf
            chosen.append(int(_largest(gained)[0]))
            covered = np.maximum(covered, likeness[:, chosen[-1]])
        return [int(places[i]) for i in chosen]


def _largest(values: Floats) -> npt.NDArray[np.int64]:
    """The values' places, the largest first, the first of equal ones before the others."""
    return np.argsort(-np.round(values, _DIGITS), kind="stable")
