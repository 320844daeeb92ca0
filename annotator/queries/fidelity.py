"""Whether a network's look-ahead agrees with really retraining it, in words."""

from dataclasses import dataclass
from typing import Any

AGREES = 0.8
PARTLY = 0.5
FEWEST = 8  # candidates: with fewer, chance alone gives nearly any rank correlation


@dataclass(frozen=True)
class Badge:
    """A sentence, and the kind of badge it is shown as."""

    words: str
    tone: str
    spearman: float | None
    candidates: int


def badge(metrics: dict[str, Any]) -> Badge | None:
    """Return what the check after the training found; None where there was none."""
    found = metrics.get("fidelity")
    if found is None:
        return None
    spearman = found.get("spearman")
    if spearman is None:
        reason = found.get("reason", "all candidates would change the model alike")
        return Badge(f"Look-ahead was not compared with real retraining: {reason}", "warning", None, 0)
    count = found["candidates"]
    if count < FEWEST:
        words = (
            f"Too few candidates to tell whether look-ahead agrees with real retraining: {count}, of {FEWEST} needed"
        )
        return Badge(words, "neutral", spearman, count)
    verdict, tone = _verdict(spearman)
    words = f"Look-ahead {verdict} real retraining: rank correlation {_short(spearman)} ({count} candidates)"
    return Badge(words, tone, spearman, count)


def _verdict(spearman: float) -> tuple[str, str]:
    if spearman >= AGREES:
        return "agrees with", "good"
    return ("partly agrees with", "warning") if spearman >= PARTLY else ("does not agree with", "bad")


def _short(value: float) -> str:
    """Two digits without the zero before the point, as correlations are written."""
    return f"{value:.2f}".replace("0.", ".", 1)
