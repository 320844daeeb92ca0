"""What the API takes and gives, field by field; the OpenAPI schema is made from these."""

import math
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from annotator.importing.addresses import LONGEST_URL
from annotator.models import AnnotationSession, Image, Job, LabelClass, Query
from annotator.models.answer import MAX_COMMENT, MAX_SECONDS, Answer
from annotator.models.strategies import Strategy
from annotator.queries.cards import Card

LARGEST_INDEX = 999_999
LARGEST_ROW = 2**31 - 1
PAGE_SIZE, LARGEST_PAGE = 100, 200


class FiniteField(serializers.FloatField):
    """A finite number: DRF lets "nan" pass every limit, and JSON has no word for it."""

    def to_internal_value(self, data: Any) -> float:
        value = float(super().to_internal_value(data))
        if isinstance(data, bool) or not math.isfinite(value):
            self.fail("invalid")
        return value


# What comes in.


class SessionRequest(serializers.Serializer[Any]):
    device = serializers.CharField(max_length=200, default="", allow_blank=True, help_text="What labels, for the log.")
    batch = serializers.IntegerField(
        min_value=1, max_value=LARGEST_ROW, allow_null=True, default=None, help_text="Work off this batch."
    )


class AnswerRequest(serializers.Serializer[Any]):
    query = serializers.UUIDField(help_text="The card's query.id.")
    client_key = serializers.UUIDField(help_text="Made anew for each answer; sent again, it changes nothing.")
    kind = serializers.ChoiceField(choices=["label", "skip", "flag"])
    class_index = serializers.IntegerField(
        min_value=0,
        max_value=LARGEST_INDEX,
        allow_null=True,
        default=None,
        help_text="Needed for a label where classes are asked for, else null.",
    )
    value = FiniteField(
        allow_null=True, default=None, help_text="Needed for a label in a regression project, in its unit; else null."
    )
    comment = serializers.CharField(max_length=MAX_COMMENT, default="", allow_blank=True)
    seconds = FiniteField(
        min_value=0, max_value=MAX_SECONDS, allow_null=True, default=None, help_text="How long the answer took."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["kind"] == "label" and attrs["class_index"] is None and attrs["value"] is None:
            words = "A label needs the index of its class; in a regression project it needs a value instead."
            raise serializers.ValidationError({"class_index": words})
        if attrs["kind"] != "label" and attrs["value"] is not None:
            raise serializers.ValidationError({"value": f"A {attrs['kind']} has no value: send null."})
        if attrs["kind"] != "label" and attrs["class_index"] is not None:
            raise serializers.ValidationError({"class_index": f"A {attrs['kind']} has no class: send null."})
        return attrs

    def as_answer(self) -> Answer:
        """Return the validated answer."""
        names = ("kind", "class_index", "value", "comment", "seconds")
        return Answer(**{name: self.validated_data[name] for name in names})


class ListedUrl(serializers.Serializer[Any]):
    url = serializers.CharField(max_length=LONGEST_URL, help_text="http or https, with a public address.")
    name = serializers.CharField(max_length=500, default="", allow_blank=True, help_text="Instead of the URL.")
    label = serializers.CharField(  # type: ignore[assignment]  # a field of that name, not the field's label
        max_length=100, default="", allow_blank=True, help_text="The name of its class, or its number."
    )


class ImportRequest(serializers.Serializer[Any]):
    urls = ListedUrl(many=True, allow_empty=False)
    labels = serializers.BooleanField(default=False, help_text="Take the labels as yours; new classes are made.")


class UndoRequest(serializers.Serializer[Any]):
    client_key = serializers.UUIDField(help_text="Made anew for each undo; sent again, it changes nothing.")


class ImagesRequest(serializers.Serializer[Any]):
    cursor = serializers.IntegerField(
        min_value=0, max_value=LARGEST_ROW, required=False, help_text="next_cursor of the page before."
    )
    limit = serializers.IntegerField(min_value=1, max_value=LARGEST_PAGE, default=PAGE_SIZE)
    labelled = serializers.BooleanField(
        required=False, help_text="Only images that have, or do not have, a label that counts."
    )
    class_index = serializers.IntegerField(
        min_value=0, max_value=LARGEST_INDEX, required=False, help_text="Only images with a label of this class."
    )


# What goes out.


class ErrorDetail(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))  # type: ignore[assignment]


class ErrorBody(serializers.Serializer[Any]):
    error = ErrorDetail()


class ClassBody(serializers.ModelSerializer[LabelClass]):
    class Meta:
        model = LabelClass
        fields = ["index", "name", "colour", "key"]


class ProjectLine(serializers.Serializer[Any]):
    slug = serializers.CharField(source="project.slug")
    name = serializers.CharField(source="project.name")
    role = serializers.CharField()
    images = serializers.IntegerField(source="image_count")
    labelled = serializers.IntegerField(source="labelled_count")


class ProjectList(serializers.Serializer[Any]):
    projects = ProjectLine(many=True)


class ScaleBody(serializers.Serializer[Any]):
    quantity = serializers.CharField(allow_blank=True, help_text="What the number says.")
    unit = serializers.CharField(allow_blank=True)
    minimum = serializers.FloatField()
    maximum = serializers.FloatField()
    step = serializers.FloatField()


class ProjectBody(serializers.Serializer[Any]):
    slug = serializers.CharField(source="project.slug")
    name = serializers.CharField(source="project.name")
    guidelines = serializers.CharField(source="project.guidelines", allow_blank=True)
    label_type = serializers.CharField(source="project.label_type")
    strategy = serializers.ChoiceField(
        source="project.strategy", choices=Strategy.choices, help_text="How the next image is chosen."
    )
    strategy_title = serializers.CharField(source="project.get_strategy_display")
    network = serializers.CharField(source="project.network")
    overlap = serializers.IntegerField(source="project.overlap", help_text="How many people label each image.")
    hide_predictions = serializers.BooleanField(source="project.hide_predictions")
    created_at = serializers.DateTimeField(source="project.created_at")
    role = serializers.CharField(help_text="Your own: admin, reviewer or annotator.")
    images = serializers.IntegerField(source="overview.images")
    labelled = serializers.IntegerField(source="overview.labelled")
    network_number = serializers.IntegerField(
        source="overview.network_number", allow_null=True, help_text="The live network; 0 is the untrained one."
    )
    classes = ClassBody(many=True)
    scale = ScaleBody(
        source="project.scale", allow_null=True, help_text="Of a regression project's numbers, else null."
    )


class ImageBody(serializers.ModelSerializer[Image]):
    name = serializers.CharField(source="source_name")
    file = serializers.SerializerMethodField(help_text="Where the picture is, for the same token.")

    class Meta:
        model = Image
        fields = ["id", "row", "name", "sha256", "width", "height", "file"]

    @extend_schema_field(serializers.CharField())
    def get_file(self, image: Image) -> str:
        return reverse("api-image-file", args=[image.pk])


class LabelBody(serializers.Serializer[Any]):
    annotator = serializers.CharField(source="user.username")
    class_index = serializers.IntegerField(source="label_class.index", allow_null=True)
    class_name = serializers.CharField(source="label_class.name", allow_null=True)
    value = serializers.FloatField(allow_null=True, help_text="In a regression project, in its unit.")
    answered_at = serializers.DateTimeField(source="created_at")


class ListedImage(ImageBody):
    labels = LabelBody(many=True, help_text="Labels that count; an annotator sees only their own.")

    class Meta(ImageBody.Meta):
        fields = [*ImageBody.Meta.fields, "labels"]


class ImagePage(serializers.Serializer[Any]):
    images = ListedImage(many=True)
    next_cursor = serializers.IntegerField(allow_null=True, help_text="Null on the last page.")


class ImportGroup(serializers.Serializer[Any]):
    reason = serializers.CharField()
    problem = serializers.BooleanField(help_text="False for duplicates.")
    count = serializers.IntegerField()
    names = serializers.ListField(child=serializers.CharField(), help_text="The first hundred.")


class ImportReportBody(serializers.Serializer[Any]):
    imported = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    problems = serializers.IntegerField()
    labelled = serializers.IntegerField()
    stopped = serializers.CharField(allow_blank=True, help_text="Why the rest was not read; empty when all was.")
    groups = ImportGroup(many=True)


class ImportBody(serializers.ModelSerializer[Job]):
    report = serializers.SerializerMethodField(help_text="What became of each file; null while there is none.")

    class Meta:
        model = Job
        fields = ["id", "state", "progress", "message", "error", "created_at", "finished_at", "report"]

    @extend_schema_field(ImportReportBody(allow_null=True))
    def get_report(self, job: Job) -> Any:
        return ImportReportBody(job.report).data if job.report else None


class SessionBody(serializers.ModelSerializer[AnnotationSession]):
    project = serializers.CharField(source="project.slug")

    class Meta:
        model = AnnotationSession
        fields = ["id", "project", "batch", "started_at"]


class QueryBody(serializers.ModelSerializer[Query]):
    image = ImageBody()

    class Meta:
        model = Query
        fields = [
            "id",
            "number",
            "image",
            "kind",
            "strategy",
            "score",
            "moved",
            "flipped",
            "selection_probability",
            "network_number",
            "labels_behind",
            "lease_until",
        ]


class EmptyBody(serializers.Serializer[Any]):
    kind = serializers.CharField()
    text = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)


class PredictionBody(serializers.Serializer[Any]):
    class_index = serializers.IntegerField(source="label_class.index")
    class_name = serializers.CharField(source="label_class.name")
    value = serializers.FloatField()


class OwnProgress(serializers.Serializer[Any]):
    labelled = serializers.IntegerField()
    total = serializers.IntegerField()
    by_me = serializers.IntegerField()
    by_me_today = serializers.IntegerField()


class CardOfBatch(serializers.Serializer[Any]):
    id = serializers.IntegerField(source="line.batch.pk")
    name = serializers.CharField(source="line.batch.name")
    position = serializers.IntegerField(allow_null=True, help_text="The image's place in the batch, from 1.")
    images = serializers.IntegerField(source="line.counts.total")
    left = serializers.IntegerField(source="line.counts.left")


class CardBody(serializers.Serializer[Any]):
    session = serializers.UUIDField(source="session.pk")
    batch = CardOfBatch(allow_null=True, help_text="Of a session that works off a batch.")
    query = QueryBody(allow_null=True)
    empty = EmptyBody(allow_null=True, help_text="Why there is no image, and what to do.")
    reason = serializers.CharField(allow_blank=True, help_text="Why this image, in words.")
    predictions = serializers.SerializerMethodField(
        help_text="Null when hidden or not known, and in a regression project."
    )
    predicted_value = serializers.SerializerMethodField(
        help_text="In a regression project, in its unit; null when hidden or not known."
    )
    prepared = serializers.BooleanField(help_text="The ranking had taken in your last answer.")
    progress = OwnProgress()
    can_undo = serializers.BooleanField()
    model = serializers.CharField(source="model_words")
    worker_notice = serializers.CharField(allow_blank=True)

    @extend_schema_field(PredictionBody(many=True, allow_null=True))
    def get_predictions(self, card: Card) -> Any:
        shown = card.predictions_shown and card.number is None
        return PredictionBody(card.classes, many=True).data if shown else None

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_predicted_value(self, card: Card) -> float | None:
        return card.number.predicted if card.number else None


class ConflictBody(ErrorBody):
    card = CardBody()


class AccuracyBody(serializers.Serializer[Any]):
    share = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    count = serializers.IntegerField()


class CurvePoint(serializers.Serializer[Any]):
    labels = serializers.IntegerField()
    share = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class ClassCount(serializers.Serializer[Any]):
    name = serializers.CharField()
    colour = serializers.CharField()
    labels = serializers.IntegerField()


class TimeSlot(serializers.Serializer[Any]):
    when = serializers.CharField()
    labels = serializers.IntegerField()
    total = serializers.IntegerField()


class BehindBody(serializers.Serializer[Any]):
    median = serializers.IntegerField()
    p95 = serializers.IntegerField()
    most = serializers.IntegerField()


class FidelityBody(serializers.Serializer[Any]):
    words = serializers.CharField()
    tone = serializers.ChoiceField(["good", "warning", "bad", "neutral"])
    spearman = serializers.FloatField(allow_null=True, help_text="Null where nothing could be compared.")
    candidates = serializers.IntegerField()


class ErrorBodyOfNumbers(serializers.Serializer[Any]):
    error = serializers.FloatField(help_text="Root mean square, in the project's unit.")
    low = serializers.FloatField()
    high = serializers.FloatField()
    mean_absolute = serializers.FloatField()
    baseline = serializers.FloatField(help_text="What always naming the mean of these images would have.")
    explained = serializers.FloatField(allow_null=True, help_text="Share of the numbers' variance; null if all agree.")
    count = serializers.IntegerField()


class ErrorPoint(serializers.Serializer[Any]):
    labels = serializers.IntegerField()
    error = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class PairBody(serializers.Serializer[Any]):
    predicted = serializers.FloatField()
    given = serializers.FloatField()


class BinBody(serializers.Serializer[Any]):
    words = serializers.CharField()
    labels = serializers.IntegerField()


class NumbersBody(serializers.Serializer[Any]):
    name = serializers.CharField()
    unit = serializers.CharField(allow_blank=True)
    audit = ErrorBodyOfNumbers(allow_null=True, help_text="On images drawn by chance; null while there are too few.")
    audit_answers = serializers.IntegerField()
    leave_one_out_error = serializers.FloatField(allow_null=True)
    error_curve = ErrorPoint(many=True)
    pairs = PairBody(many=True, help_text="The last audited images: predicted before the answer, and given.")
    histogram = BinBody(many=True)


class OutlookBody(serializers.Serializer[Any]):
    target = serializers.FloatField()
    labels = serializers.IntegerField(allow_null=True, help_text="Labels still needed; null is more than any number.")
    low = serializers.IntegerField(allow_null=True, help_text="The lower end of the 80 % interval.")
    high = serializers.IntegerField(
        allow_null=True, help_text="Its upper end; null where the curve may never get there."
    )
    reached = serializers.FloatField(
        allow_null=True, help_text="How likely the target is reached already; null while nothing can be said."
    )
    audited = serializers.IntegerField()
    audited_enough = serializers.IntegerField()
    words = serializers.CharField()
    note = serializers.CharField()
    curve = CurvePoint(many=True, help_text="The accuracy expected at label counts, with 80 % intervals.")


class ProgressBody(serializers.Serializer[Any]):
    images = serializers.IntegerField()
    labelled = serializers.IntegerField()
    audit = AccuracyBody(allow_null=True, help_text="On images drawn by chance; null while there are too few.")
    audit_answers = serializers.IntegerField()
    audit_enough = serializers.IntegerField()
    outlook = OutlookBody(allow_null=True, help_text="Labels still needed for the target accuracy.")
    leave_one_out_accuracy = serializers.FloatField(allow_null=True)
    fidelity = FidelityBody(
        allow_null=True, help_text="Does the live network's look-ahead agree with real retraining? Null if unchecked."
    )
    network_number = serializers.IntegerField(allow_null=True)
    relative_ridge = serializers.FloatField(allow_null=True)
    prepared_share = serializers.FloatField(allow_null=True)
    labels_behind = BehindBody(allow_null=True, help_text="Labels of others that chosen cards had not seen.")
    curve = CurvePoint(many=True)
    numbers = NumbersBody(
        allow_null=True, help_text="Of a regression project, in place of accuracy, curve and classes."
    )
    classes = ClassCount(many=True)
    over_time = TimeSlot(many=True)
