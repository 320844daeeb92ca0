"""Images, to members of their project alone; content-addressed, so that a browser may keep them for good."""

import logging
from pathlib import Path

from django.conf import settings
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.views.decorators.http import require_safe

from annotator import access, media
from annotator.importing.thumbnails import THUMBNAIL_SIZES, thumbnail_of
from annotator.models import Image

log = logging.getLogger(__name__)

TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
}


@require_safe
def image_file(request: HttpRequest, image_id: int, digest: str) -> HttpResponse:
    """Serve an image, or with ?size= a thumbnail of it."""
    image = access.image_for_member(request.user, image_id)
    if len(digest) != 16 or not image.sha256.startswith(digest):
        raise Http404("No such image.")
    return send_image(request, image)


def send_image(request: HttpRequest, image: Image) -> HttpResponse:
    """Send the file of an image, or the thumbnail that `?size=` asks for; 304 to whoever has it already."""
    size = next((size for size in THUMBNAIL_SIZES if request.GET.get("size") == str(size)), None)
    tag = f'"{image.sha256[:32]}{f"-{size}" if size else ""}"'
    if request.headers.get("If-None-Match") == tag:
        return secured(HttpResponseNotModified(), tag)
    try:
        path = inside_media(image.file)
    except media.MediaStoreError:
        log.exception("picture %s cannot be had", image.pk)
        return HttpResponse("The picture cannot be had at the moment: the object store does not answer.", status=503)
    if size is not None:
        path = thumbnail_of(path, sha256=image.sha256, size=size)
    return secured(FileResponse(path.open("rb"), content_type=TYPES.get(path.suffix, "application/octet-stream")), tag)


def inside_media(name: str) -> Path:
    """Return the path of a stored file; Http404 for one that is gone, a link, or outside the media folder."""
    root = Path(settings.MEDIA_ROOT).resolve()
    path = media.local_path(name)
    if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(root):
        raise Http404("The file of this image is missing.")
    return path


def secured(response: HttpResponse | FileResponse, tag: str) -> HttpResponse:
    """Say that the file never changes, is for this person alone, and is nothing that runs."""
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.headers["ETag"] = tag
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response  # type: ignore[return-value]
