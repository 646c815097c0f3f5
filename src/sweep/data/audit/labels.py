"""Rows whose intent seems to be another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from sweep.data.audit.finding import Finding, Row, judge, shortened
from sweep.data.example import Example
from sweep.types import Limit

FOLDS = 4
# With fewer rows the intent can't be guessed well: of 9 each, a fifth of sound rows looked mislabelled.
FEWEST = 20
# More would take minutes, and the share is known well enough.
MOST_ROWS = 10_000


def mislabelled(examples: Sequence[Example], limit: Limit, *, seed: int) -> Finding:
    """The share of rows that confident learning takes for mislabelled, by out-of-fold guesses of the intent.

    Source: Northcutt, Jiang, Chuang 2021, arXiv:1911.00068.
    """
    counts = Counter(row.intent for row in examples)
    rows = [row for row in examples if row.intent is not None and counts[row.intent] >= FEWEST]
    order = np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS]
    rows = [rows[i] for i in sorted(order.tolist())]
    names = sorted({row.intent for row in rows if row.intent is not None})
    if len(names) < 2:
        return judge(
            "labels",
            0.0,
            limit,
            worse="above",
            message=f"not checked: fewer than two intents have {FEWEST} rows",
            mend="",
        )
    labels = np.array([names.index(str(row.intent)) for row in rows])
    guess = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2),
        LogisticRegression(C=10.0, max_iter=300),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    beliefs = cross_val_predict(guess, [row.prompt for row in rows], labels, cv=folds, method="predict_proba")
    odd = find_label_issues(labels, beliefs, return_indices_ranked_by="self_confidence", n_jobs=1)
    share = len(odd) / len(rows)
    shown = [
        Row(rows[i].id, f"{rows[i].intent}, rather {names[beliefs[i].argmax()]}: {shortened(rows[i].prompt)}")
        for i in odd
    ]
    return judge(
        "labels",
        share,
        limit,
        worse="above",
        message=f"{share:.1%} of the rows seem to have another intent than they are labelled with",
        mend="Read the rows and correct their intent, or join intents that even people mix up.",
        rows=shown,
    )
