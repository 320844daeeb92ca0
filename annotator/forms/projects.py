"""The admin's forms: a project, its classes, its images, its people."""

import json
from collections.abc import Sequence
from copy import copy
from typing import Any, cast

from django import forms
from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from annotator.models import LabelClass, Membership, Project
from annotator.models.scale import FIELDS, FIXED, Scale, ScaleError
from annotator.models.strategies import GROUPS, Strategy, explanation

CLASSES_HELP = "One a line. Behind a bar you may give a key of your own: “cat | k”. The keys 1 to 9 and 0 go first."


def offer_strategies(form: forms.ModelForm, allowed: Sequence[Strategy], *, numbers: bool) -> None:  # type: ignore[type-arg]
    """Offer these strategies in their groups; the script puts what the chosen one asks for below."""
    field = cast(forms.ChoiceField, form.fields["strategy"])
    field.choices = [
        (group, [(one.value, one.label) for one in members if one in allowed])
        for group, members in GROUPS.items()
        if set(members) & set(allowed)
    ]
    chosen = Strategy(form.initial.get("strategy") or Strategy.LOOKAHEAD)
    field.help_text = explanation(chosen, numbers=numbers)
    field.widget.attrs["data-explanations"] = json.dumps({one: explanation(one, numbers=numbers) for one in allowed})


class SettingsForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none at run time
    """What may change while people label."""

    audit_share = forms.FloatField(
        label="Audit images (per cent)",
        min_value=0,
        max_value=100,
        help_text="Drawn at random to measure accuracy honestly. 5 means one in twenty.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )

    class Meta:
        model = Project
        fields: tuple[str, ...] = Project.CHANGEABLE
        labels = {
            "strategy": "Order of the images",
            "retrain_growth": "Train again when the labels have grown by a factor of",
            "overlap": "Labels wanted per image",
            "hide_predictions": "Hide the model's predictions until after the answer",
        }
        help_texts = {
            "guidelines": "Shown to annotators with the key H: what belongs to each class, what to do in doubt.",
            "training_strength": "How far training moves the network. Medium suits most pools. "
            "Where only the last layer is trained it changes nothing.",
            "overlap": "More than 1 has several people label the same image.",
            "hide_predictions": "Predictions save time, and they bias people.",
        }
        widgets: dict[str, forms.Widget] = {"guidelines": forms.Textarea(attrs={"rows": 6})}

    def __init__(self, data: QueryDict | None = None, *, instance: Project | None = None) -> None:
        # A form writes into its instance even when it is invalid: the page goes on showing the real project.
        super().__init__(data, instance=copy(instance))
        if self.instance.pk is not None:  # what is asked for is settled by then
            self.fit_to_labels(self.instance)
        if self.instance.audit_share is not None:
            self.initial["audit_share"] = f"{100 * self.instance.audit_share:g}"

    def fit_to_labels(self, project: Project) -> None:
        """Offer the orders that there are for its labels."""
        offer_strategies(self, Project.STRATEGIES[Project.LabelType(project.label_type)], numbers=project.is_regression)
        if project.is_regression:
            self.fields["overlap"].help_text = "More than 1 has several people label the same image: their mean counts."

    def clean_audit_share(self) -> float:
        return float(self.cleaned_data["audit_share"]) / 100


NETWORK_LABELS = {
    "weights": "Its weights",
    "freeze": "Layers that stay as they are",
    "image_size": "Image size in pixels",
}
NETWORK_HELP = {
    "network": "The small one learns from the labels alone and suits small pictures; for photos, take ResNet-18.",
    "weights": "With few labels, trained weights help most. A download needs a server with a network.",
    "freeze": "Frozen layers run once for each image: without a GPU this saves most of the time.",
    "image_size": "Empty: the size the network was trained with, 224 for most. Smaller is faster.",
}


def weights_field() -> forms.FileField:
    """A file of weights, wanted only where one is chosen."""
    return forms.FileField(
        label="The weights' file",
        required=False,
        max_length=500,
        help_text="Only with that choice: a safetensors file of the network's torchvision state dict; its last layer "
        "may have other classes.",
        widget=forms.FileInput(attrs={"accept": ".safetensors"}),
        error_messages={"empty": "This file is empty: choose a safetensors file."},
    )


def check_upload(form: forms.ModelForm, *, kept: str = "") -> None:  # type: ignore[type-arg]  # it takes none at run time
    """Put an error on the form unless a file came exactly where one is chosen; `kept` is one that is here already."""
    chosen, upload = form.cleaned_data.get("weights"), form.cleaned_data.get("weights_upload")
    if chosen == Project.Weights.FILE and upload is None and not kept and "weights_upload" not in form.errors:
        form.add_error("weights_upload", "Choose the file, or other weights.")
    if chosen and chosen != Project.Weights.FILE and upload is not None:
        form.add_error("weights", "You sent a file: choose it here, or leave the file out.")


class NetworkForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none at run time
    """Another network for a project that has learned nothing yet."""

    weights_upload = weights_field()

    class Meta:
        model = Project
        fields = ("network", "weights", "freeze", "image_size")
        labels = NETWORK_LABELS
        help_texts = NETWORK_HELP

    field_order = ("network", "weights", "weights_upload", "freeze", "image_size")

    def __init__(
        self,
        data: QueryDict | None = None,
        files: "MultiValueDict[str, UploadedFile[bytes]] | None" = None,
        *,
        instance: Project,
    ) -> None:
        self.kept = instance.weights_file
        super().__init__(data, files, instance=copy(instance))
        if self.kept:
            self.fields["weights_upload"].help_text += " Without a file, the one that was sent before stays."

    def clean(self) -> dict[str, Any]:
        """A file is wanted where one is chosen and none is kept."""
        cleaned = super().clean() or self.cleaned_data
        check_upload(self, kept=self.kept)
        return cleaned


SCALE_FIELDS = ("quantity", "unit", "minimum", "maximum", "step")
SCALE_LABELS = {
    "quantity": "What the number says",
    "unit": "Unit",
    **{field: called.capitalize() for field, called in FIELDS.items()},
}
SCALE_HELP = {
    "quantity": "As “Angle” or “Age”: the name of the field that annotators fill in.",
    "unit": "Shown behind the number, as ° or years. It may stay empty.",
    "step": "How fine the numbers are: 1 for whole ones, 0.5 for halves.",
}


def number_widgets() -> dict[str, forms.Widget]:
    return {field: forms.NumberInput(attrs={"step": "any"}) for field in ("minimum", "maximum", "step")}


def check_scale(form: forms.ModelForm, cleaned: dict[str, Any]) -> None:  # type: ignore[type-arg]  # none at run time
    """Put an error on the form beside the field that keeps the scale from being one."""
    for name in ("minimum", "maximum", "step"):
        if name not in form.errors and cleaned.get(name) is None:
            form.add_error(name, "This field is required.")
    if any(name in form.errors for name in ("minimum", "maximum", "step")):
        return
    try:
        Scale(cleaned["minimum"], cleaned["maximum"], cleaned["step"]).check()
    except ScaleError as error:
        form.add_error(error.field, str(error))


class ScaleForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none at run time
    """The scale of a regression project; but for its name it stays once numbers have been given."""

    class Meta:
        model = Project
        fields = SCALE_FIELDS
        labels = SCALE_LABELS
        help_texts = SCALE_HELP
        widgets = number_widgets()

    def __init__(self, data: QueryDict | None = None, *, instance: Project, fixed: bool = False) -> None:
        super().__init__(data, instance=copy(instance))
        kept = SCALE_FIELDS[1:] if fixed else ()
        sent = QueryDict() if data is None else data
        # A page of before the first number has these fields open, and what is disabled is read from the project.
        self.comes_late = any(
            name in sent and self.fields[name].has_changed(self.initial[name], sent[name]) for name in kept
        )
        for name in kept:
            self.fields[name].disabled = True

    def clean(self) -> dict[str, Any]:
        """A number can be chosen on the scale; another scale comes too late once there are numbers."""
        cleaned = super().clean() or self.cleaned_data
        check_scale(self, cleaned)
        if self.comes_late:
            self.add_error(None, FIXED)
        return cleaned


class ProjectForm(SettingsForm):
    """A new project. What is asked for, a class or a number, and the network are chosen here once and for all."""

    weights_upload = weights_field()

    classes = forms.CharField(
        label="Classes",
        required=False,
        help_text=CLASSES_HELP,
        widget=forms.Textarea(attrs={"rows": 6, "data-classes": "", "spellcheck": "false"}),
    )

    class Meta(SettingsForm.Meta):
        fields: tuple[str, ...] = (
            "name",
            "label_type",
            *SCALE_FIELDS,
            "guidelines",
            "network",
            "weights",
            "freeze",
            "image_size",
            "training_strength",
            "strategy",
            "audit_share",
            "overlap",
            "hide_predictions",
        )
        labels = {
            **SettingsForm.Meta.labels,
            **NETWORK_LABELS,
            **SCALE_LABELS,
            "label_type": "What an image is given",
        }
        help_texts = {
            **SettingsForm.Meta.help_texts,
            **NETWORK_HELP,
            **SCALE_HELP,
            "label_type": "A class is one of several names; a number is an angle, an age, a count, on a slider.",
        }
        widgets = {**SettingsForm.Meta.widgets, **number_widgets()}

    def __init__(
        self,
        data: QueryDict | None = None,
        files: "MultiValueDict[str, UploadedFile[bytes]] | None" = None,
    ) -> None:
        super().__init__(data)
        self.files = files or MultiValueDict()
        self.initial["step"] = 1
        offer_strategies(self, tuple(Project.Strategy), numbers=False)
        orders = {kind.value: [one.value for one in allowed] for kind, allowed in Project.STRATEGIES.items()}
        self.fields["label_type"].required = False
        self.fields["label_type"].widget.attrs["data-orders"] = json.dumps(orders)

    def clean(self) -> dict[str, Any]:
        """A file is wanted where one is chosen; of classes and scale only what is asked for counts."""
        cleaned = super().clean() or self.cleaned_data
        check_upload(self)
        cleaned["label_type"] = cleaned.get("label_type") or Project.LabelType.CLASSIFICATION
        if cleaned["label_type"] == Project.LabelType.REGRESSION:
            cleaned["classes"] = []
            self.errors.pop("classes", None)
            check_scale(self, cleaned)
        else:
            for name in SCALE_FIELDS:
                cleaned[name] = "" if name in ("quantity", "unit") else None
                self.errors.pop(name, None)
        return cleaned

    def clean_classes(self) -> list[tuple[str, str]]:
        text = self.cleaned_data["classes"]
        if not text:
            raise forms.ValidationError("This field is required.")
        return parse_classes(text)


class AddClassesForm(forms.Form):
    """More classes for a project that exists."""

    classes = forms.CharField(
        label="Add classes",
        help_text=f"{CLASSES_HELP} The network learns them at its next training.",
        widget=forms.Textarea(attrs={"rows": 3, "data-classes": "", "spellcheck": "false"}),
    )

    def clean_classes(self) -> list[tuple[str, str]]:
        return parse_classes(self.cleaned_data["classes"])


def parse_classes(text: str) -> list[tuple[str, str]]:
    """Return (name, key) for every line that is not empty; the key stands behind a bar."""
    pairs = [line.rpartition("|") if "|" in line else (line, "", "") for line in text.splitlines() if line.strip()]
    if not pairs:
        raise forms.ValidationError("Name at least one class.")
    return [(name.strip(), key.strip()) for name, _bar, key in pairs]


class ClassForm(forms.Form):
    """One class of a project; its place in all arrays never changes."""

    index = forms.IntegerField(widget=forms.HiddenInput)
    name = forms.CharField(max_length=100)
    key = forms.CharField(
        max_length=1, required=False, widget=forms.TextInput(attrs={"size": 2, "autocomplete": "off"})
    )
    colour = forms.CharField(widget=forms.TextInput(attrs={"type": "color"}))


ClassFormSet = forms.formset_factory(ClassForm, extra=0, absolute_max=1_000, max_num=1_000)


def class_rows(classes: Sequence[LabelClass]) -> list[dict[str, object]]:
    """Return what the class forms begin with."""
    return [{"index": found.index, "name": found.name, "key": found.key, "colour": found.colour} for found in classes]


class ManyFiles(forms.ClearableFileInput):
    allow_multiple_selected = True


class ManyFilesField(forms.FileField):
    """One or more files."""

    def clean(self, data: object, initial: object = None) -> "list[UploadedFile[bytes]]":
        files = data if isinstance(data, (list, tuple)) and data else [None]
        return [super(ManyFilesField, self).clean(file, initial) for file in files]


class UploadForm(forms.Form):
    """Pictures for the pool."""

    pictures = ManyFilesField(
        label="Pictures, zip archives or lists of URLs",
        allow_empty_file=True,
        max_length=500,
        widget=ManyFiles(attrs={"accept": ".zip,application/zip,image/*,.csv,.jsonl,.ndjson", "multiple": True}),
        error_messages={"required": "Choose a zip archive or some pictures first."},
    )
    labels_from_folders = forms.BooleanField(
        label="Folders are labels",
        required=False,
        help_text="The first folder inside the zip, or a list's column “label”, names the class of its images (missing "
        "ones are made), or has their number.",
    )


class MemberForm(forms.Form):
    """Somebody with an account joins."""

    username = forms.CharField(max_length=150, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(choices=Membership.Role.choices, initial=Membership.Role.ANNOTATOR)


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Membership.Role.choices)


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]  # it takes none at run time
    """Somebody without an account joins: the page then shows a link to sign in with, once."""

    role = forms.ChoiceField(choices=Membership.Role.choices, initial=Membership.Role.ANNOTATOR)

    class Meta:
        model = User
        fields = ("username",)
        help_texts = {"username": "Letters, digits and @ . + - _"}
        widgets = {"username": forms.TextInput(attrs={"autocomplete": "off"})}
