"""A batch to be prepared, and the file with its labels."""

from typing import Any

from django import forms
from django.forms.boundfield import BoundField

from annotator.models.batch_methods import WORDS, BatchMethod, BatchMode

SIZE = 200


class BatchForm(forms.Form):
    """Name, size and method; the action knows their limits."""

    name = forms.CharField(max_length=100, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    size = forms.IntegerField(
        label="Images", min_value=1, initial=SIZE, widget=forms.NumberInput(attrs={"inputmode": "numeric"})
    )
    method = forms.ChoiceField(choices=BatchMethod.choices, initial=BatchMethod.LCMD, widget=forms.RadioSelect)
    mode = forms.ChoiceField(
        choices=BatchMode.choices,
        initial=BatchMode.TRAIN_AND_POOL,
        required=False,
        help_text="Whether the batch is to be unlike the labelled images, too. Max-diag and Random have none.",
    )
    seed = forms.IntegerField(
        min_value=0,
        initial=0,
        required=False,
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
        help_text="The same seed on the same labels chooses the same images.",
    )

    def clean_seed(self) -> int:
        return self.cleaned_data["seed"] or 0

    def explained(self) -> list[tuple[Any, str]]:
        """Return the method's buttons, each with its sentence."""
        field: BoundField = self["method"]
        return [(box, WORDS[box.data["value"]]) for box in field]


class LabelsForm(forms.Form):
    labels = forms.FileField(
        label="The filled-in table, CSV or JSON lines",
        widget=forms.FileInput(attrs={"accept": ".csv,.tsv,.txt,.jsonl,.ndjson,text/csv"}),
        error_messages={"required": "Choose the file with the labels.", "empty": "This file is empty."},
    )
