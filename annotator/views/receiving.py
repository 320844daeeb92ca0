"""Large requests: refused before their body is read where they will be refused anyway."""

from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest


class DiscardFiles(FileUploadHandler):
    """Reads files and keeps nothing of them."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Forget this piece."""

    def file_complete(self, file_size: int) -> None:
        """There is no file."""


def keep_nothing(request: HttpRequest) -> None:
    """Django's error pages look for a CSRF token, which reads the body: whatever this person sends is kept nowhere."""
    request.upload_handlers = [DiscardFiles(request)]


def content_length(request: HttpRequest) -> int:
    """Return how many bytes the request announces."""
    return int(request.META.get("CONTENT_LENGTH") or 0)
