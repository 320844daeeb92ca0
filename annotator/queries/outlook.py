"""When to stop: the labels still needed for the accuracy a project wants, in numbers and in words."""

import math
from dataclasses import dataclass
from typing import Any

from annotator.models import Linearization, Project

ENOUGH = 10  # audited images; with fewer, the answer would be the prior's alone
TARGETS = range(50, 100)  # per cent
SURE = 0.9
USED_UP = "as many labels have come as were thought to be needed; the model is about to look again"


@dataclass(frozen=True)
class Outlook:
    """Labels still needed for `target`, with an 80 % interval; None is more than any number, or not known yet.

    `reached` is the probability that the target is reached already, None while nothing can be said. `curve` is the
    accuracy expected at label counts, with its interval.
    """

    target: float
    labels: int | None
    low: int | None
    high: int | None
    reached: float | None
    audited: int
    audited_enough: int
    words: str
    note: str
    curve: list[dict[str, float]]


def outlook(
    project: Project, live: Linearization | None, *, audited: int, labelled: int, images: int
) -> Outlook | None:
    """Return what the learner found last, less what was labelled since; None where labels are numbers."""
    if project.is_regression:
        return None
    found: dict[str, Any] = live.outlook if live is not None else {}
    need = found.get("needs", {}).get(str(percent_of(project.target_accuracy)))
    if need is None:
        return _nothing_yet(project, audited)
    since = max(0, labelled - found["labels"])
    labels, low, high = (_less(value, since) for value in need[:3])
    left = max(0, images - labelled)
    if need[0] and labels == 0:  # an estimate, used up; whether it was right is seen when the learner looks again
        labels, words, note = None, "perhaps none", USED_UP
    else:
        words, note = _words(labels, low, high, reached=need[3], left=left)
    return Outlook(
        target=project.target_accuracy,
        labels=labels,
        low=low,
        high=high,
        reached=need[3],
        audited=found["audited"],
        audited_enough=ENOUGH,
        words=words,
        note=note,
        curve=found["curve"],
    )


def percent_of(share: float) -> int:
    return round(100 * share)


def _nothing_yet(project: Project, audited: int) -> Outlook:
    note = f"{audited} of {ENOUGH} audited images"
    if audited >= ENOUGH:
        note = "with the next labels: the model has yet to look at the audited images"
    elif project.audit_share == 0:
        note = "no images are audited: give them a share in the settings"
    return Outlook(project.target_accuracy, None, None, None, None, audited, ENOUGH, "not enough yet", note, [])


def _less(value: float | None, since: int) -> int | None:
    return None if value is None else max(0, round(value) - since)


def _words(labels: int | None, low: int | None, high: int | None, *, reached: float, left: int) -> tuple[str, str]:
    """Return the answer, and its interval as a sentence beside it."""
    if labels == 0:
        sure = f"{100 * reached:.0f} % sure"
        return "none", f"reached, {sure}" if reached >= SURE else f"probably reached, {sure}"
    low_words = _count(low or 0)
    if low is None or low > left:
        return "more than there are", f"even with the {left:,} images that are left, the model is unlikely to get there"
    if high is None or high > left:
        note = f"80 % interval from {low_words} to more than the {left:,} images that are left"
    else:
        note = f"80 % interval {low_words} to {_count(high)}"
    if labels is None or labels > left:
        return f"{low_words} or more", note
    return f"about {_count(labels)}", note


def _count(value: int) -> str:
    """Two digits that count: an estimate says no more."""
    if value < 100:
        return f"{value}"
    step = 10 ** (int(math.log10(value)) - 1)
    return f"{round(value / step) * step:,}"
