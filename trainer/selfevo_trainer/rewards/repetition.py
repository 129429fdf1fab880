"""How much of a batch says the same thing: the repetition share |C|/B of the Challenger's reward.

The public code calls NLTK for every pair, minutes for one step's questions (benchmarks/repetition.py). Here a
batch is a few sparse matrix products. N-gram g's k-th occurrence in a question is one binary feature, (g, k): a
question that holds g three times has (g, 1), (g, 2) and (g, 3). Two questions then share min(count, count')
features of g, which is BLEU's clipped count, so all clipped counts of one order are inner products of binary rows.

Everything after the counts repeats NLTK's floating-point steps to the last bit (see `_log`, `_exp` and
`_sum`): average linkage breaks ties by the bits, and short questions tie all the time.

Suffixes: B questions, T tokens of all questions, G n-grams of one order, F features, R rows of a block,
C columns of a block, P pairs i < j in the order of scipy's condensed distances.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csc_array, csr_array
from scipy.special import inv_boxcox, xlogy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ORDERS = 4
WEIGHT = 1 / ORDERS
EPSILON = 0.1
"""NLTK's smoothing method 1: a clipped count of zero counts as this."""

BLOCK = 1 << 18
"""Pairs in hand at once: a temporary is 2 MiB at most, whatever B is."""
COMMON = 8
"""A feature in more than 1/COMMON of the questions goes through a dense product, which is cheaper there."""
CHUNK = 512
"""Common features made dense at once."""


def repetition_share(questions: Sequence[str], distance: float = 0.5) -> Floats:
    """The share of the batch that lies in each question's cluster: |C|/B, shape (B,), float64.

    Clusters: average linkage over d(i, j) = 1 - BLEU(hypothesis = question i, reference = question j) for
    i < j, merged while the linkage distance is below `distance` (a merge at exactly `distance` is not made).
    BLEU-4 over whitespace tokens, smoothing method 1. Invalid completions enter as the empty string, which
    is at distance 1 from everything, another empty string included.

    Source: R-Zero, arXiv 2508.05004, "repetition penalty"; direction, smoothing and threshold as in its
    public code, Chengsong-Huang/R-Zero (`cluster_share_per_problem`), which fails for B = 1; here that is [1.0].

    >>> repetition_share(["What is 2 + 3 ?", "What is 2 + 5 ?", "Name a prime"]).round(2).tolist()
    [0.67, 0.67, 0.33]

    The order of the questions matters: the earlier one of a pair is the hypothesis.

    Time and memory are linear in the text and quadratic in B: about 1 s and 150 MB for 4,096 questions of
    40 tokens, nearly all of it the distances of all pairs, held twice by scipy's linkage.

    Raises:
        TypeError: `questions` is one string, or holds something other than strings.
        ValueError: `distance` is negative or not a number.
    """
    if isinstance(questions, str):
        raise TypeError("questions is one string; pass a sequence of questions")
    if not distance >= 0:
        raise ValueError(f"distance is {distance}; it must be 0 or more")
    B = len(questions)
    if B < 2:
        return np.ones(B)
    tree = linkage(_distances(questions), method="average")
    # fcluster merges at `<= t`, scikit-learn's distance_threshold (the public code) at `< t`.
    labels_B = fcluster(tree, np.nextafter(distance, -np.inf), criterion="distance")
    shares_B: Floats = np.bincount(labels_B)[labels_B] / B
    return shares_B


def near_share(questions: Sequence[str], earlier: Sequence[str], distance: float = 0.5) -> Floats:
    """The share of ``earlier`` that lies near each question, shape (B,): 1 - BLEU(hypothesis = the question,
    reference = the earlier one) is below `distance`. BLEU as in `repetition_share`; 0 without any earlier one.

    >>> near_share(["What is 2 + 3 ?", "Name a prime"], ["What is 2 + 5 ?", "What is 2 + 3 ?", "Why ?"]).round(2)
    array([0.67, 0.  ])
    """
    B = len(questions)
    if not B or not earlier:
        return np.zeros(B)
    shares_B = np.empty(B)
    for start, bleu_RC in _bleus([*questions, *earlier], B):
        stop = start + len(bleu_RC)
        shares_B[start:stop] = (1 - bleu_RC[:, B - start :] < distance).mean(axis=1)
    return shares_B


def _distances(questions: Sequence[str]) -> Floats:
    """1 - BLEU of every pair i < j, condensed: shape (P,)."""
    B = len(questions)
    distances_P = np.empty(B * (B - 1) // 2)
    done = 0
    for _, bleu_RC in _bleus(questions, B):
        block_P = 1 - bleu_RC[np.triu(np.ones(bleu_RC.shape, dtype=bool), k=1)]
        distances_P[done : done + block_P.size] = block_P
        done += block_P.size
    return distances_P


def _bleus(questions: Sequence[str], rows: int) -> Iterator[tuple[int, Floats]]:
    """Blocks of BLEU(hypothesis = question i, reference = question j) that cover the first ``rows`` questions i: where
    a block starts, and (R, C), j from that start on."""
    ids_T, lengths_B = _tokens(questions)
    orders = [_features(rows_G, grams_G, len(questions)) for rows_G, grams_G in _ngrams(ids_T, lengths_B)]
    for start, stop in _blocks(len(questions)):
        if start >= rows:
            return
        end = min(stop, rows)
        clipped = [order.shared(start, end) for order in orders]
        yield start, _bleu(clipped, lengths_B[start:end], lengths_B[start:])


def _blocks(B: int) -> Iterator[tuple[int, int]]:
    """Row ranges [start, stop) that cover 0..B: at most BLOCK pairs or, as the half of a block that lies on the
    diagonal is computed in vain, an eighth of the rows; but no less than 64 rows where that fits."""
    rows = max(1, min(BLOCK // B, max(64, B // 8)))
    return pairwise([*range(0, B, rows), B])


# --- clipped counts -------------------------------------------------------------------------------------------------


def _tokens(questions: Sequence[str]) -> tuple[Ints, Ints]:
    """Whitespace tokens as numbers, (T,), and each question's number of tokens, (B,)."""
    vocabulary: dict[str, int] = {}
    ids = array("q")
    lengths = array("q")
    for question in questions:
        if not isinstance(question, str):
            raise TypeError(f"a question is {type(question).__name__}; it must be a string")
        tokens = question.split()
        ids.extend(vocabulary.setdefault(token, len(vocabulary)) for token in tokens)
        lengths.append(len(tokens))
    return np.array(ids, dtype=np.int64), np.array(lengths, dtype=np.int64)


def _ngrams(ids_T: Ints, lengths_B: Ints) -> Iterator[tuple[Ints, Ints]]:
    """For n = 1..4: the question and the number of every n-gram, (G,) each, in the order of the text."""
    rows_T = np.repeat(np.arange(lengths_B.size), lengths_B)
    left_T = np.repeat(np.cumsum(lengths_B), lengths_B) - np.arange(ids_T.size)
    starts_G = np.arange(ids_T.size)
    grams_G = ids_T
    yield rows_T, grams_G
    for n in range(2, ORDERS + 1):
        fits_G = left_T[starts_G] >= n
        starts_G = starts_G[fits_G]
        # An n-gram is the (n-1)-gram that it starts with and its last token; numbered anew to stay small.
        pairs_G = grams_G[fits_G] * (ids_T.max(initial=0) + 1) + ids_T[starts_G + n - 1]
        grams_G = np.unique(pairs_G, return_inverse=True)[1]
        yield rows_T[starts_G], grams_G


class _Features(NamedTuple):
    """Binary features (n-gram, k-th occurrence) of one order, split by how many questions have them."""

    common: Any  # csc_array (B, F), float32
    rare: Any  # csr_array (B, F), float64

    def shared(self, start: int, stop: int) -> Floats:
        """Features that questions start..stop share with questions start..B: clipped counts, (R, C)."""
        shared_RC: Floats = (self.rare[start:stop] @ self.rare[start:].T).toarray()
        for first in range(0, self.common.shape[1], CHUNK):
            common = self.common[:, first : first + CHUNK].toarray()[start:]
            shared_RC += common[: stop - start] @ common.T
        return shared_RC


def _features(rows_G: Ints, grams_G: Ints, B: int) -> _Features:
    rows_G, columns_G, questions_F = _occurrences(rows_G, grams_G)
    is_common_F = questions_F * COMMON > B
    is_rare_F = (questions_F > 1) & ~is_common_F  # what one question alone has is shared with nobody
    return _Features(
        common=csc_array(_select(rows_G, columns_G, is_common_F, B, np.float32)),
        rare=_select(rows_G, columns_G, is_rare_F, B, np.float64),
    )


def _occurrences(rows_G: Ints, grams_G: Ints) -> tuple[Ints, Ints, Ints]:
    """Number the features (n-gram, k): question and feature of each occurrence, and questions of each feature.

    Occurrences of the n-gram 7 in the questions 0, 0 and 2 get k = 0, 1 and 0, hence the features
    (7, 0), (7, 1) and (7, 0).
    """
    by_gram = np.argsort(grams_G, kind="stable")  # rows ascend already, so runs of (n-gram, question) form
    rows_G, grams_G = rows_G[by_gram], grams_G[by_gram]
    index_G = np.arange(rows_G.size)
    new_run = np.ones(rows_G.size, dtype=bool)
    new_run[1:] = (np.diff(rows_G) != 0) | (np.diff(grams_G) != 0)
    k_G = index_G - np.maximum.accumulate(np.where(new_run, index_G, 0))
    keys_G = grams_G * (k_G.max(initial=0) + 1) + k_G
    _, columns_G, questions_F = np.unique(keys_G, return_inverse=True, return_counts=True)
    return rows_G, columns_G, questions_F


def _select(rows_G: Ints, columns_G: Ints, selected_F: NDArray[np.bool_], B: int, dtype: type[np.floating[Any]]) -> Any:
    """The binary matrix (B, selected features) as csr_array."""
    kept_G = selected_F[columns_G]
    columns = (np.cumsum(selected_F) - 1)[columns_G[kept_G]]
    ones: NDArray[np.floating[Any]] = np.ones(columns.size, dtype=dtype)
    return csr_array((ones, (rows_G[kept_G], columns)), shape=(B, int(selected_F.sum())))


# --- BLEU from clipped counts, bit for bit as nltk.translate.bleu_score.sentence_bleu -------------------------------


def _bleu(clipped: Sequence[Floats], hypothesis_R: Ints, reference_C: Ints) -> Floats:
    """BLEU of hypotheses of these lengths against references of these lengths, (R, C)."""
    log_precisions = []
    for n, clipped_RC in enumerate(clipped, start=1):
        total_R = np.maximum(hypothesis_R - n + 1, 1)  # NLTK: at least 1, also for questions shorter than n
        smoothed_RC = np.where(clipped_RC == 0, EPSILON, clipped_RC)
        log_precisions.append(WEIGHT * _log(smoothed_RC / total_R[:, None]))
    ratio_RC = reference_C[None, :] / np.maximum(hypothesis_R, 1)[:, None]
    brevity_RC = _exp(np.minimum(1 - ratio_RC, 0))
    bleu_RC = brevity_RC * _exp(_sum(log_precisions))
    return np.where(clipped[0] == 0, 0.0, bleu_RC)  # no common token: exactly 0, whatever the smoothing


def _log(x: Floats) -> Floats:
    """The C library's log, as math.log; numpy's vectorised one may differ in the last bit."""
    result: Floats = xlogy(1.0, x)
    return result


def _exp(x: Floats) -> Floats:
    """The C library's exp, as math.exp; numpy's vectorised one may differ in the last bit."""
    result: Floats = inv_boxcox(x, 0.0)
    return result


def _sum(terms: Sequence[Floats]) -> Floats:
    """The sum of logarithms, rounded once, as math.fsum.

    Knuth's two-sum gives each addition's rounding error. The logarithms are below 2**5 and, for questions of up
    to 2**27 tokens, multiples of 2**-82: the errors add up exactly, and only the last line rounds.
    """
    total = terms[0]
    error = np.zeros_like(total)
    for term in terms[1:]:
        new = total + term
        kept = new - total
        error += (total - (new - kept)) + (term - kept)
        total = new
    rounded: Floats = total + error
    return rounded
