"""Which strategies to compare, and how often."""

from django import forms
from django.http import QueryDict

from annotator.models import Project
from annotator.models.strategies import CLASSES


class ComparisonForm(forms.Form):
    """Strategies and repetitions; the action knows their limits."""

    strategies = forms.MultipleChoiceField(
        choices=[(one.value, one.label) for one in CLASSES],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose two strategies or more."},
    )
    seeds = forms.IntegerField(
        label="Repetitions",
        initial=5,
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
        help_text="Each with other images held out and other networks. Five tell large differences, ten smaller ones.",
    )

    def __init__(self, data: QueryDict | None = None, *, project: Project) -> None:
        super().__init__(data)
        usual = [Project.Strategy.LOOKAHEAD, project.strategy, Project.Strategy.MARGIN, Project.Strategy.RANDOM]
        self.initial["strategies"] = list(dict.fromkeys(usual))
