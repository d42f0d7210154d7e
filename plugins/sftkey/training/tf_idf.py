"""How telling a token is for its row: TF-IDF over the responses of a data set."""

from __future__ import annotations

import numpy as np


def tf_idf_ranks(ids: np.ndarray, response: np.ndarray, labelled: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rank the labelled tokens of each row by TF-IDF: how often the row has the token times ``log(rows / rows with it)``.

    Args:
        ids: The tokens of all rows end to end.
        response: Which of them are a response: the text that is counted.
        labelled: Which of them are trained: those that are ranked.
        lengths: The number of tokens of each row.

    Returns:
        The share of the row's labelled tokens with as large a TF-IDF or a larger one, float32; 2 for other tokens.
    """
    with_it = np.zeros(int(ids.max(initial=0)) + 1)
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    parts = [slice(start, end) for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    for part in parts:
        with_it[np.unique(ids[part][response[part]])] += 1
    ranks = np.full(len(ids), 2.0, dtype=np.float32)
    for part in parts:
        words, index, counts = np.unique(ids[part][response[part]], return_inverse=True, return_counts=True)
        if not len(words):
            continue
        value = np.full(part.stop - part.start, -np.inf)
        value[response[part]] = (counts / counts.sum() * np.log(len(parts) / with_it[words]))[index]
        trained = np.flatnonzero(labelled[part])
        order = trained[np.argsort(-value[trained], kind="stable")]
        ranks[part.start + order] = (np.arange(len(order)) + 1) / max(len(order), 1)
    return ranks
