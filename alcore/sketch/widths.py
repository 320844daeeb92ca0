"""How many columns each parameter's block gets: in proportion to its gradient energy, the total exactly as asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alcore.sketch.errors import LinearizationError


class SketchSizeError(LinearizationError):
    """A sketch too small for what it has to hold."""


@dataclass(frozen=True)
class Demand:
    """A parameter's mean squared gradient norm, its entries, and whether it wants columns of its own."""

    energy: float
    entries: int
    own: bool


@dataclass(frozen=True)
class Share:
    """Parameters that add up in the same columns; `copies` blocks of `width` columns, one a sign row."""

    names: tuple[str, ...]
    energy: float
    entries: int
    copies: int


def shares(demands: Mapping[str, Demand], *, size: int, rows: int) -> list[Share]:
    """One share a matrix, one for all vectors, and for the weakest matrices where columns are too few for all.

    A shared block has the same variance as separate ones of the same total width: it is a question of cost alone.
    """
    limit = max(size // (2 * rows), 1)
    ranked = sorted((name for name in demands if demands[name].own), key=lambda name: -demands[name].energy)
    alone = set(ranked[:limit])
    found = [_share((name,), demands, rows) for name in demands if name in alone]
    together = tuple(name for name in demands if name not in alone)
    return found + ([_share(together, demands, rows)] if together else [])


def _share(names: tuple[str, ...], demands: Mapping[str, Demand], rows: int) -> Share:
    energy = sum(demands[name].energy for name in names)
    return Share(names, energy, sum(demands[name].entries for name in names), rows)


def allocate(wanted: Sequence[Share], *, size: int) -> list[int]:
    """Widths in proportion to energy, at least 1, at most the entries; copies times widths add up to at most `size`.

    What is left over is less than one more column for any share that still wants one. Raises SketchSizeError.
    """
    least = sum(share.copies for share in wanted)
    if size < least:
        raise SketchSizeError(f"a sketch of {size} columns is too small for this network: it needs at least {least}")
    total = sum(share.energy for share in wanted)
    energies = [share.energy / total if total > 0 else 1.0 for share in wanted]
    quotas = _quotas(wanted, energies, size)
    widths = [max(1, int(quota)) for quota in quotas]
    while sum(width * share.copies for width, share in zip(widths, wanted, strict=True)) > size:
        widths[max(range(len(widths)), key=lambda place: widths[place])] -= 1
    _hand_out(widths, quotas, wanted, size)
    return widths


def _quotas(wanted: Sequence[Share], energies: list[float], size: int) -> list[float]:
    """A share whose part exceeds its entries is held exactly, and the rest is divided among the others."""
    full: set[int] = set()
    while True:
        left = size - sum(wanted[place].entries * wanted[place].copies for place in full)
        energy = sum(energies[place] for place in range(len(wanted)) if place not in full)
        quotas = [
            float(share.entries) if place in full else left * energies[place] / energy / share.copies if energy else 1.0
            for place, share in enumerate(wanted)
        ]
        found = {place for place, share in enumerate(wanted) if place not in full and quotas[place] >= share.entries}
        if not found:
            return quotas
        full |= found


def _hand_out(widths: list[int], quotas: list[float], wanted: Sequence[Share], size: int) -> None:
    """Columns lost to rounding go to those that lost most."""
    while True:
        left = size - sum(width * share.copies for width, share in zip(widths, wanted, strict=True))
        open_places = [p for p, share in enumerate(wanted) if share.copies <= left and widths[p] < share.entries]
        if not open_places:
            return
        widths[max(open_places, key=lambda place: quotas[place] - widths[place])] += 1
