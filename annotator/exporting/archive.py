"""A project's images with their labels in one zip: folders of classes, or a table of numbers."""

from collections.abc import Iterator

from annotator.exporting import image_folder, image_table
from annotator.models import Project

CONTENT_TYPE = image_folder.CONTENT_TYPE


def stream(project: Project) -> Iterator[bytes]:
    """Yield the zip that fits the project's labels."""
    return image_table.stream(project) if project.is_regression else image_folder.stream(project)
