"""Which strategies to compare, and how often."""

from typing import cast

from django import forms
from django.http import QueryDict

from annotator.models import Project
from annotator.models.contenders import Contender

OF_THE_PROJECT = {
    Project.Strategy.LOOKAHEAD: Contender.LOOKAHEAD,
    Project.Strategy.MARGIN: Contender.MARGIN,
    Project.Strategy.ENTROPY: Contender.ENTROPY,
}


class ComparisonForm(forms.Form):
    """Strategies and repetitions; the action knows their limits."""

    strategies = forms.MultipleChoiceField(
        choices=Contender.choices,
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
        own = OF_THE_PROJECT.get(cast(Project.Strategy, project.strategy), Contender.LOOKAHEAD)
        self.initial["strategies"] = [*dict.fromkeys([Contender.LOOKAHEAD, own, Contender.MARGIN, Contender.RANDOM])]
