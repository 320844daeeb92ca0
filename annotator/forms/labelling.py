"""What the annotator's page sends."""

from typing import Any, cast

from django import forms
from django.http import QueryDict

from annotator.models.answer import MAX_COMMENT, MAX_SECONDS, Answer
from annotator.models.scale import OffScaleError, parse_number

LONGEST_NUMBER = 40


class AnswerField(forms.CharField):
    """ "label:3" (a class index), "number" (which stands in a field of its own), "skip" or "flag"."""

    def clean(self, value: object) -> tuple[str, int | None]:
        text = super().clean(value)
        kind, _, index = text.partition(":")
        if kind in ("number", "skip", "flag") and not index:
            return kind, None
        if kind == "label" and index.isdecimal() and len(index) <= 6:
            return kind, int(index)
        raise forms.ValidationError(f"“{text[:40]}” is no answer: choose a class, give a number, skip or flag.")


class NumberField(forms.CharField):
    """A number as people type it, with a point or a comma, with its unit or without; None where nothing is typed."""

    unit = ""

    def clean(self, value: object) -> float | None:
        text = super().clean(value)
        try:
            return parse_number(text, self.unit) if text.strip() else None
        except OffScaleError as error:
            raise forms.ValidationError(str(error)) from error


class CorrectionForm(forms.Form):
    answer = AnswerField(max_length=40)
    value = NumberField(required=False, max_length=LONGEST_NUMBER)
    client_key = forms.UUIDField()
    comment = forms.CharField(required=False, max_length=MAX_COMMENT)
    seconds = forms.FloatField(required=False, min_value=0, max_value=MAX_SECONDS)

    def __init__(self, data: QueryDict, *, unit: str) -> None:
        super().__init__(data)
        cast(NumberField, self.fields["value"]).unit = unit

    def clean(self) -> dict[str, Any]:
        """A skip needs no number, whatever was typed before it; a label by number needs one."""
        cleaned = super().clean() or self.cleaned_data
        kind, _ = cleaned.get("answer", ("", None))
        if kind == "number":
            if "value" in cleaned and cleaned["value"] is None:
                self.add_error("value", "Type a number, or skip the image.")
        elif kind:
            self.errors.pop("value", None)
            cleaned["value"] = None
        return cleaned

    def as_answer(self) -> Answer:
        """Return the cleaned answer."""
        kind, index = self.cleaned_data["answer"]
        return Answer(
            kind="label" if kind == "number" else kind,
            class_index=index,
            value=self.cleaned_data["value"],
            comment=self.cleaned_data["comment"],
            seconds=self.cleaned_data["seconds"],
        )


class AnswerForm(CorrectionForm):
    query = forms.UUIDField()
    newest = forms.CharField(required=False)  # the last answer that the page has

    def clean_newest(self) -> int | None:
        """No answer is refused for this."""
        text = self.cleaned_data["newest"]
        return int(text) if text.isdecimal() and len(text) < 20 else None


class UndoForm(forms.Form):
    client_key = forms.UUIDField()


def first_error(form: forms.Form) -> str:
    """Return what is wrong in one sentence that names the field."""
    name, errors = next(iter(form.errors.items()))
    return str(errors[0]) if name in ("answer", "value", "__all__") else f"{name}: {errors[0]}"
