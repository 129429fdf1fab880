"""Whether a question repeats a held-out one: word n-grams in common. Pure (docs/method.md, "Contamination").

Source: GPT-3, arXiv 2005.14165, appendix C. An n-gram is n words that follow one another; a word is what stands between
blanks, in lower case and without punctuation. GPT-3 filtered its training data by 13-grams, and measured overlap by
n-grams of 8 to 13 words; 8 and 13 are what is counted here.

What is shorter than n words has no n-gram, and shares none: `37 + 48` is compared as a whole (``normalise_question``).
So is a text in a script without blanks.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from selfevo_contract.spec.rollout import OVERLAP_WORDS, Contamination
from selfevo_trainer.answers.extraction import folded_words, normalise_question

_PUNCTUATION = re.compile(r"[^\w\s]|_")


def words_of(text: str) -> list[str]:
    """The words of ``text``, as n-grams are made of them.

    >>> words_of("Find $x$, if x + 1 = 2.")
    ['find', 'x', 'if', 'x', '1', '2']
    """
    return _PUNCTUATION.sub("", " ".join(folded_words(text))).split()


def ngrams_of(text: str, length: int) -> Iterator[int]:
    """A number for each run of ``length`` words: the first 64 bits of a hash, the same on every machine."""
    words = [word.encode("utf-8", "surrogatepass") for word in words_of(text)]
    for start in range(len(words) - length + 1):
        gram = b" ".join(words[start : start + length])
        yield int.from_bytes(hashlib.blake2b(gram, digest_size=8).digest())


class HeldOutQuestions:
    """The questions that may not be asked, by their texts and by their n-grams."""

    def __init__(
        self, tasks: Sequence[Sequence[str]] = (), exclude: Iterable[str] = (), rule: Contamination | None = None
    ) -> None:
        """
        Args:
            tasks: the questions of each held-out task.
            exclude: further questions.
            rule: how many words in common are too many; the spec's default when None.
        """
        self._tasks = [list(task) for task in tasks]
        self._all = [question for task in self._tasks for question in task] + list(exclude)
        self._texts = frozenset(map(normalise_question, self._all))
        self._words = (rule or Contamination()).words
        self._indices: dict[tuple[int, int | None], array[int]] = {}

    def holds(self, question: str) -> bool:
        """Whether it is one of them, whatever its layout and case."""
        return normalise_question(question) in self._texts

    def overlaps(self, question: str) -> bool:
        """Whether it has as many words in a row in common with one of them as the rule forbids."""
        return self._share(ngrams_of(question, self._words), self._words)

    def counts(self, questions: Iterable[str]) -> dict[str, float]:
        """How many of ``questions`` share an n-gram, for each of OVERLAP_WORDS.

        Returns:
            ``overlap_8`` and ``overlap_13`` over all that is held out; ``overlap_8/0`` of the first task, and so on,
            where it is not zero. A question counts once, however much it shares. Nothing when nothing is held out.
        """
        if not self._all:
            return {}
        counts = {f"overlap_{length}": 0.0 for length in OVERLAP_WORDS}
        for question in questions:
            for length in OVERLAP_WORDS:
                grams = list(ngrams_of(question, length))
                if self._share(grams, length):
                    counts[f"overlap_{length}"] += 1
                    for task in range(len(self._tasks)):
                        if self._share(grams, length, task):
                            name = f"overlap_{length}/{task}"
                            counts[name] = counts.get(name, 0.0) + 1
        return counts

    def _share(self, grams: Iterable[int], length: int, task: int | None = None) -> bool:
        index = self._index(length, task)
        places = ((gram, bisect_left(index, gram)) for gram in grams)
        return any(place < len(index) and index[place] == gram for gram, place in places)

    def _index(self, length: int, task: int | None) -> array[int]:
        """Sorted n-grams of a task, or of all; made when first asked for. 8 bytes each: SuperGPQA's are some 20 MB."""
        key = (length, task)
        if key not in self._indices:
            texts = self._all if task is None else self._tasks[task]
            self._indices[key] = array("Q", sorted({gram for text in texts for gram in ngrams_of(text, length)}))
        return self._indices[key]


NOTHING_HELD_OUT = HeldOutQuestions()
