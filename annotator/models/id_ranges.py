"""Sets of ids as sorted inclusive ranges, [[first, last], ...]: exact, and short where ids are nearly consecutive."""

from collections.abc import Iterable

from django.db.models import Q

Ranges = list[list[int]]


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


def outside(ranges: Ranges, *, field: str = "id") -> Q:
    """Return the condition that `field` is in none of the ranges: one comparison pair a gap, never a list of ids."""
    condition = Q()
    lower: int | None = None
    for first, last in ranges:
        gap = Q(**{f"{field}__lt": first})
        if lower is not None:
            gap &= Q(**{f"{field}__gt": lower})
        if lower is None or first - lower > 1:
            condition |= gap
        lower = last
    return condition | Q(**{f"{field}__gt": lower}) if lower is not None else Q()
