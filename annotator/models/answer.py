"""What an annotator said, before it is a row."""

from dataclasses import dataclass

from annotator.models.annotation import Annotation

MAX_SECONDS = 86_400.0
MAX_COMMENT = 2_000


@dataclass(frozen=True)
class Answer:
    """A label with its class or its number, a skip, or a flag (set aside for review, without a label)."""

    kind: str
    class_index: int | None = None
    value: float | None = None
    comment: str = ""
    seconds: float | None = None

    @property
    def annotation_kind(self) -> Annotation.Kind:
        return Annotation.Kind.LABEL if self.kind == "label" else Annotation.Kind.SKIP
