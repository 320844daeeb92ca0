"""The scale of a number: what may be chosen on it, and how numbers are read and written."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.forms.projects import SCALE_LABELS
from annotator.models.scale import OffScaleError, Scale, ScaleError, parse_number, plain

ANGLE = Scale(0, 180, 0.5, quantity="Angle", unit="°")


@pytest.mark.parametrize(
    ("scale", "field"),
    [
        (Scale(5, 5, 1), "maximum"),
        (Scale(5, 1, 1), "maximum"),
        (Scale(0, 1, 0), "step"),
        (Scale(0, 1, -1), "step"),
        (Scale(0, 1, 0.3), "step"),
        (Scale(0, 1, 2), "step"),
        (Scale(0, 1, 1e-7), "step"),
        (Scale(float("nan"), 1, 1), "minimum"),
        (Scale(0, float("inf"), 1), "maximum"),
        (Scale(0, 1, float("nan")), "step"),
        (Scale(-1e13, 1, 1), "minimum"),
    ],
)
def test_a_scale_nothing_can_be_chosen_on_is_refused_with_the_field_to_change(scale, field):
    with pytest.raises(ScaleError) as refused:
        scale.check()
    assert refused.value.field == field


@pytest.mark.parametrize("field", ["minimum", "maximum", "step"])
def test_a_number_too_large_for_a_scale_is_called_as_its_field_is(field):
    with pytest.raises(ScaleError) as refused:
        replace(ANGLE, **{field: 1e13}).check()
    assert str(refused.value) == f"The {SCALE_LABELS[field].lower()} must lie within ±1,000,000,000,000."


@pytest.mark.parametrize(
    "scale",
    [
        Scale(1.6e9, 1.6e9 + 100, 0.001),
        Scale(-1.6e9 - 100, -1.6e9, 0.001),
        Scale(1.6e9 + 0.125, 1.6e9 + 10.125, 1),
        Scale(1e12 - 10, 1e12, 0.5),
        Scale(1e9, 1e9 + 1, 1 / 3),
    ],
)
def test_a_scale_whose_numbers_have_more_digits_than_are_kept_is_refused(scale):
    with pytest.raises(ScaleError, match="need more digits than the 12 that are kept") as refused:
        scale.check()
    assert refused.value.field == "step"


@pytest.mark.parametrize(
    "scale",
    [
        ANGLE,
        Scale(-1, 1, 0.1),
        Scale(0.1, 0.7, 0.2),
        Scale(-20, 45, 1),
        Scale(0, 1, 1),
        Scale(0, 1, 1 / 3),
        Scale(1.6e9, 1.6e9 + 10, 0.01),
        Scale(0, 1e12, 1e10),
    ],
)
def test_every_step_of_a_scale_is_kept_as_it_is_written(scale):
    scale.check()
    steps = round((scale.maximum - scale.minimum) / scale.step)
    for number in range(steps + 1):
        value = scale.minimum + number * scale.step
        kept = scale.place(value)
        assert kept == pytest.approx(value, abs=1e-9)
        assert scale.place(parse_number(scale.text(kept))) == kept


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (180.5, "180.5 is outside the range: it goes from 0 ° to 180 °."),
        (-0.5, "-0.5 is outside the range: it goes from 0 ° to 180 °."),
        (12.3, "12.3 lies between two steps: choose 12 ° or 12.5 °."),
        (float("nan"), "“nan” is no number."),
        (float("inf"), "“inf” is no number."),
    ],
)
def test_a_number_off_the_scale_is_refused_with_what_would_be_on_it(value, words):
    with pytest.raises(OffScaleError) as refused:
        ANGLE.place(value)
    assert str(refused.value) == words


def test_tenths_are_kept_without_the_error_of_binary_fractions():
    assert Scale(0, 1, 0.1).place(0.1 + 0.2) == 0.3


@given(st.floats(-1e6, 1e6))
def test_the_nearest_step_is_on_the_scale_and_at_most_half_a_step_away(value):
    nearest = ANGLE.nearest(value)
    assert ANGLE.place(nearest) == nearest
    assert abs(nearest - min(max(value, 0), 180)) <= 0.25 + 1e-9


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), (" 12.5 ", 12.5), ("12,5", 12.5), ("-3", -3), ("−3", -3), (".5", 0.5), ("1e2", 100)]
)
def test_numbers_are_read_as_people_type_them(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [("10 %", "%", 10), ("10%", "%", 10), ("−2,5 °", "°", -2.5), ("10", "%", 10), ("10", "0", 10), ("3 km²", "km²", 3)],
)
def test_the_unit_may_stand_behind_a_number(text, unit, value):
    assert parse_number(text, unit) == value


@pytest.mark.parametrize("text", ["10 px", "%", "10 % %", "% 10", "nan %"])
def test_another_unit_is_none_and_a_unit_alone_is_no_number(text):
    with pytest.raises(OffScaleError, match=f"“{text}” is no number"):
        parse_number(text, "%")


@pytest.mark.parametrize("text", ["", "abc", "1.000,5", "1_000", "nan", "inf", "1e999", "0x10", "12°"])
def test_what_is_no_number_is_named(text):
    with pytest.raises(OffScaleError, match="is no number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-7, "0.0000001"), (1e9, "1000000000"), (-0.0, "0"), (2.50, "2.5"), (100.0, "100")]
)
def test_numbers_are_written_in_digits(value, text):
    assert plain(value) == text


def test_words_have_the_unit_and_no_more_decimals_than_the_scale():
    assert (ANGLE.words(12.0), ANGLE.words(12.5), ANGLE.words(12.34567)) == ("12 °", "12.5 °", "12.3 °")
    assert Scale(0, 10, 1).words(3.7) == "4"
    assert Scale(0, 10, 0.25).decimals == 2
    assert Scale(0.5, 10.5, 1).text(3.5) == "3.5"


def test_an_error_has_a_digit_more_since_it_is_a_mean():
    assert Scale(0, 180, 1, unit="°").error_words(7.4321) == "7.4 °"
    assert Scale(0, 1, 0.5).error_words(0.00712) == "0.0071"
    assert Scale(0, 180, 1).error_words(0.0) == "0.0"
