"""The scale of a regression project: from where to where its numbers go, in which steps, and in which unit."""

import math
from dataclasses import dataclass
from decimal import Decimal

TOLERANCE = 1e-6  # of a step: what two ways of writing the same number may differ by
MOST_STEPS = 1_000_000
LARGEST = 1e12
DIGITS = 12  # significant ones: beyond them are the errors of binary fractions
FIELDS = {"minimum": "smallest number", "maximum": "largest number", "step": "step"}  # what people know them by
FIXED = (
    "Numbers have been given on this scale meanwhile: unit, range and step stay, since another would change what they "
    "say. Nothing was changed."
)


class ScaleError(ValueError):
    """A scale no number can be chosen on; the message says why, `field` names what to change."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class OffScaleError(ValueError):
    """A number that is not on the scale; the message says what would be."""


@dataclass(frozen=True)
class Scale:
    """What annotators answer with: `quantity` is what the number says ("Angle"), `unit` may be empty."""

    minimum: float
    maximum: float
    step: float
    quantity: str = ""
    unit: str = ""

    @property
    def name(self) -> str:
        """What the number is called where nobody has named it."""
        return self.quantity or "Number"

    @property
    def middle(self) -> float:
        return self.minimum / 2 + self.maximum / 2

    @property
    def half_range(self) -> float:
        return self.maximum / 2 - self.minimum / 2

    @property
    def decimals(self) -> int:
        """How many digits behind the point a number on this scale has."""
        parts = [Decimal(plain(value)).normalize().as_tuple().exponent for value in (self.step, self.minimum)]
        return max(0, *(-part for part in parts if isinstance(part, int)))

    def check(self) -> None:
        """Raise ScaleError unless numbers can be chosen on it."""
        for field, called in FIELDS.items():
            if not abs(getattr(self, field)) <= LARGEST:
                raise ScaleError(f"The {called} must lie within ±{LARGEST:,.0f}.", field=field)
        if not self.minimum < self.maximum:
            raise ScaleError("The largest number must be above the smallest.", field="maximum")
        if self.step <= 0:
            raise ScaleError("The step must be above 0.", field="step")
        steps = (self.maximum - self.minimum) / self.step
        if steps > MOST_STEPS * (1 + TOLERANCE):
            raise ScaleError(f"These are more than {MOST_STEPS:,} steps: take a larger one.", field="step")
        if round(steps) < 1 or abs(steps - round(steps)) > TOLERANCE * max(1.0, steps):
            shown = f"{plain(self.minimum)} to {plain(self.maximum)}"
            raise ScaleError(f"From {shown} is no whole number of steps of {plain(self.step)}.", field="step")
        self._check_digits()

    def _check_digits(self) -> None:
        """Raise ScaleError where keeping a number would move it: what is lost of thirds, say, is far below a step."""
        before = math.floor(math.log10(max(abs(self.minimum), abs(self.maximum)))) + 1
        behind = max(_decimals(value) for value in (self.minimum, self.step) if value)
        lost = 0.5 * 10.0 ** (before - DIGITS)
        if before + behind > DIGITS and lost > TOLERANCE * self.step:
            shown = f"{plain(self.minimum)} to {plain(self.maximum)} in steps of {plain(self.step)}"
            raise ScaleError(
                f"Numbers from {shown} need more digits than the {DIGITS} that are kept: take a larger step, or a "
                "range nearer to 0.",
                field="step",
            )

    def place(self, value: float) -> float:
        """Return the number as it is kept: inside the range and on a step. Raises OffScaleError."""
        self.contain(value)
        steps = (value - self.minimum) / self.step
        if abs(steps - round(steps)) > TOLERANCE * max(1.0, abs(steps)):
            below = self.minimum + math.floor(steps) * self.step
            above = min(below + self.step, self.maximum)
            raise OffScaleError(
                f"{plain(value)} lies between two steps: choose {self.words(below)} or {self.words(above)}."
            )
        return self.nearest(value)

    def contain(self, value: float) -> None:
        """Raise OffScaleError for what is no number, or outside the range."""
        if not math.isfinite(value):
            raise OffScaleError(f"“{value}” is no number.")
        slack = TOLERANCE * self.step
        if not self.minimum - slack <= value <= self.maximum + slack:
            raise OffScaleError(
                f"{plain(value)} is outside the range: it goes from {self.words(self.minimum)} "
                f"to {self.words(self.maximum)}."
            )

    def nearest(self, value: float) -> float:
        """Return the step next to a number, written without the error of binary fractions."""
        inside = min(max(value, self.minimum), self.maximum)
        steps = round((inside - self.minimum) / self.step)
        return float(plain(min(self.minimum + steps * self.step, self.maximum)))

    def share(self, value: float) -> float:
        """Return where a number stands on the scale, 0 at its beginning and 1 at its end."""
        inside = min(max(value, self.minimum), self.maximum)
        return (inside - self.minimum) / (self.maximum - self.minimum)

    def words(self, value: float) -> str:
        """Return a number with its unit, as people read it; at most as many decimals as the scale has."""
        return f"{self.text(value)} {self.unit}".strip()

    def text(self, value: float) -> str:
        """Return a number as an input field has it, at most as many decimals as the scale has."""
        return plain(round(value, self.decimals)) if self.decimals else plain(float(round(value)))

    def error_words(self, value: float) -> str:
        """Return an error with its unit: one digit more than the scale has, since it is a mean."""
        digits = max(self.decimals + 1, 1 - math.floor(math.log10(abs(value))) if value else 0)
        return f"{value:,.{min(digits, DIGITS)}f} {self.unit}".strip()


def _decimals(value: float) -> int:
    """Return the places behind the point that a number takes; below 0 where it ends in noughts before it."""
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def plain(value: float) -> str:
    """Return a number in digits, never in powers of ten, without needless zeros."""
    text = format(Decimal(f"{value:.{DIGITS}g}"), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def parse_number(text: str, unit: str = "") -> float:
    """Return what somebody typed as a number; a comma may stand for the point, and the unit behind it.

    Raises OffScaleError.
    """
    typed = text.strip()
    for written in (typed, typed.removesuffix(unit)):  # first as it is: a unit may look like the end of a number
        try:
            value = float(written.replace("\u2212", "-").replace(",", "."))
        except ValueError:
            continue
        if math.isfinite(value) and "_" not in written:
            return value
    raise OffScaleError(f"“{typed[:40]}” is no number.")
