"""The repetition share as one would write it first: NLTK for every pair, scikit-learn for the clusters.

Tests compare `selfevo_trainer.rewards.repetition` with it, and benchmarks/repetition.py races against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sklearn.cluster import AgglomerativeClustering


def reference_distances(questions: Sequence[str]) -> np.ndarray:
    """1 - BLEU(hypothesis i, reference j) for i < j, mirrored: (B, B)."""
    smoothing = SmoothingFunction().method1
    tokens = [question.split() for question in questions]
    distances = np.zeros((len(tokens), len(tokens)))
    for i, hypothesis in enumerate(tokens):
        for j in range(i + 1, len(tokens)):
            bleu = sentence_bleu([tokens[j]], hypothesis, smoothing_function=smoothing)
            distances[i, j] = distances[j, i] = 1 - bleu
    return distances


def reference_share(questions: Sequence[str], distance: float = 0.5) -> np.ndarray:
    """Share of the batch in each question's cluster, (B,), for B >= 2 (scikit-learn clusters no fewer)."""
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=distance, metric="precomputed", linkage="average"
    )
    labels = clustering.fit_predict(reference_distances(questions))
    sizes = Counter(labels.tolist())
    return np.array([sizes[label] / len(questions) for label in labels.tolist()])
