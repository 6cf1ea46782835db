"""Faults of texts that models write: refusals, loops of words, another language."""

import re
from collections import Counter
from functools import lru_cache
from typing import Any

EMPTY, REFUSAL, LOOP, LANGUAGE = "empty text", "refusal", "loop of words", "other language"
"""Faults, as they are counted."""

_REFUSAL = re.compile(
    r"\b(?:(?:i(?:'|’)?m|i am|we(?:'|’)?re|we are) (?:very |really )?(?:sorry|unable|not able|not allowed)"
    r"|as an ai\b|as a (?:large )?language model|i (?:cannot|can(?:'|’)t|can not|won(?:'|’)t|do not|don(?:'|’)t)"
    r" (?:assist|help|provide|describe|see|view|identify|process|fulfil|fulfill|comply|have the ability)"
    r"|no image (?:was|is|has been) (?:provided|attached|given|uploaded)|please (?:provide|upload) (?:an|the) image)",
    re.IGNORECASE,
)
_LONGEST_LOOP = 12  # words that are repeated
_SHARE = 0.35  # of the 5-grams that may be repeated ones
_SURE = 0.5  # probability of a language
_ENOUGH = 5  # words by which a language can be told


def fault_of(text: str, language: str = "") -> str | None:
    """The fault of a text that a model wrote, by the names above; None: it has none.

    Args:
        text: the text.
        language: ISO 639-1 code of the language that it must have; empty: any.

    Raises:
        ValueError: the language cannot be told, since py3langid is missing or does not know it.
    """
    if not text.strip():
        return EMPTY
    if _REFUSAL.search(text):
        return REFUSAL
    if is_loop(text):
        return LOOP
    return LANGUAGE if language and is_other_language(text, language) else None


def is_loop(text: str) -> bool:
    """True if words are repeated without end: three times running (one word: five times), or in much of the text."""
    words = re.findall(r"[\w'’-]+", text.lower())
    for size in range(1, min(_LONGEST_LOOP, len(words) // 3) + 1):
        needed = 4 * size if size == 1 else 2 * size
        same = 0
        for i in range(size, len(words)):
            same = same + 1 if words[i] == words[i - size] else 0
            if same == needed:
                return True
    grams = Counter(tuple(words[i : i + 5]) for i in range(len(words) - 4))
    repeated = sum(n for n in grams.values() if n > 1)
    return len(words) >= 20 and repeated > _SHARE * grams.total()


def is_other_language(text: str, language: str) -> bool:
    """True if a text of five words or more has another language, with a probability of at least one half."""
    if len(text.split()) < _ENOUGH and text.isascii():
        return False
    found, probability = _identifier(language).classify(text)
    return found != language and probability >= _SURE


@lru_cache(maxsize=1)
def _identifier(language: str) -> Any:
    try:
        from py3langid import langid
    except ModuleNotFoundError:
        raise ValueError(
            "curate: to tell languages needs py3langid; pip install 'fgclip_fast[curate]', or pass --language ''"
        ) from None
    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    if language not in found.labels:
        raise ValueError(f"curate: --language must be one of {', '.join(sorted(found.labels))}, got {language!r}")
    return found
