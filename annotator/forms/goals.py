"""The accuracy that is enough."""

from django import forms
from django.http import QueryDict

from annotator.models import Project
from annotator.queries.outlook import TARGETS, percent_of


class TargetForm(forms.Form):
    """A whole number of per cent."""

    percent = forms.IntegerField(
        label="Target accuracy (per cent)",
        min_value=TARGETS[0],
        max_value=TARGETS[-1],
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
    )

    def __init__(self, data: QueryDict | None = None, *, project: Project) -> None:
        super().__init__(data, initial={"percent": percent_of(project.target_accuracy)})
