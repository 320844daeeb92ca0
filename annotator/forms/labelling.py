"""What the annotator's page sends."""

from django import forms

from annotator.models.answer import MAX_COMMENT, MAX_SECONDS, Answer


class AnswerField(forms.CharField):
    """ "label:3" (a class index), "skip" or "flag"."""

    def clean(self, value: object) -> tuple[str, int | None]:
        text = super().clean(value)
        kind, _, index = text.partition(":")
        if kind in ("skip", "flag") and not index:
            return kind, None
        if kind == "label" and index.isdecimal() and len(index) <= 6:
            return kind, int(index)
        raise forms.ValidationError(f"“{text[:40]}” is no answer: choose a class, skip or flag.")


class CorrectionForm(forms.Form):
    answer = AnswerField(max_length=40)
    client_key = forms.UUIDField()
    comment = forms.CharField(required=False, max_length=MAX_COMMENT)
    seconds = forms.FloatField(required=False, min_value=0, max_value=MAX_SECONDS)

    def as_answer(self) -> Answer:
        """Return the cleaned answer."""
        kind, index = self.cleaned_data["answer"]
        return Answer(
            kind=kind,
            class_index=index,
            comment=self.cleaned_data["comment"],
            seconds=self.cleaned_data["seconds"],
        )


class AnswerForm(CorrectionForm):
    query = forms.UUIDField()


class UndoForm(forms.Form):
    client_key = forms.UUIDField()


def first_error(form: forms.Form) -> str:
    """Return what is wrong in one sentence that names the field."""
    name, errors = next(iter(form.errors.items()))
    return str(errors[0]) if name in ("answer", "__all__") else f"{name}: {errors[0]}"
