"""Sets of ids as sorted inclusive ranges, [[first, last], ...]: exact, and short where ids are nearly consecutive."""

from collections.abc import Iterable
from itertools import pairwise

from django.db.models import BooleanField, F, Func, Q

Ranges = list[list[int]]
Gap = tuple[int | None, int | None]  # the ids from the first to the last, None where it is open
LAST_ID = 2**63 - 1
GROUP = 32  # comparisons side by side


def to_ranges(ids: Iterable[int]) -> Ranges:
    """Return the ids as ranges; only ids that are there are covered, so a gap is never bridged."""
    ranges: Ranges = []
    for number in sorted(set(ids)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def expand(ranges: Ranges) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def contains(ranges: Ranges, number: int) -> bool:
    return any(first <= number <= last for first, last in ranges)


def add(ranges: Ranges, number: int) -> Ranges:
    """Return the ranges with one more id, the others untouched."""
    if contains(ranges, number):
        return ranges
    before = [pair for pair in ranges if pair[1] < number]
    after = [pair for pair in ranges if pair[0] > number]
    first, last = number, number
    if before and before[-1][1] == number - 1:
        first = before.pop()[0]
    if after and after[0][0] == number + 1:
        last = after.pop(0)[1]
    return [*before, [first, last], *after]


def _any_of(column: str, gaps: list[Gap]) -> str:
    """Comparisons in groups of groups: databases bound how deep a condition nests, and most rows look at one group."""
    if len(gaps) <= GROUP:
        return " OR ".join(_within(column, first, last) for first, last in gaps)
    size = GROUP
    while size * GROUP < len(gaps):
        size *= GROUP
    groups = [gaps[start : start + size] for start in range(0, len(gaps), size)]
    return " OR ".join(
        f"({_within(column, group[0][0], group[-1][1])} AND ({_any_of(column, group)}))" for group in groups
    )


def _within(column: str, first: int | None, last: int | None) -> str:
    if first is None:
        return f"{column} <= {last:d}"
    return f"{column} >= {first:d}" if last is None else f"{column} BETWEEN {first:d} AND {last:d}"


def ends(ranges: Ranges) -> tuple[list[int], list[int]]:
    """Return what stands before and after each gap, open ends and all, filled up with gaps that hold nothing to a
    power of two: of few lengths statements can be kept."""
    before, after = [0, *(last for _, last in ranges)], [*(first for first, _ in ranges), LAST_ID]
    filling = [0] * ((1 << (len(before) - 1).bit_length()) - len(before))
    return before + filling, after + filling


def outside(ranges: Ranges, *, field: str = "id") -> Q:
    """Return the condition that `field` is in none of the ranges: one comparison pair a gap, never a list of ids."""
    if not ranges:
        return Q()
    gaps: list[Gap] = [(None, ranges[0][0] - 1)]
    gaps += [(before[1] + 1, after[0] - 1) for before, after in pairwise(ranges)]
    gaps.append((ranges[-1][1] + 1, None))
    # Written out as numbers: Django takes half a second over five thousand pairs of parameters.
    written = _any_of("%(expressions)s", gaps)
    return Q(Func(F(field), template=f"({written})", output_field=BooleanField()))
