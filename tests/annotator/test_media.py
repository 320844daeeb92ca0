"""Pictures: for members alone, never changed, nothing that runs, and quick."""

import hashlib
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from PIL import Image as Picture
from pytest_django.fixtures import Settings

from annotator.importing import thumbnails
from annotator.models import Image, Project

pytestmark = pytest.mark.django_db
AsUser = Callable[[User], Client]


@pytest.fixture(autouse=True)
def own_media(settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


@pytest.fixture
def image(project: Project) -> Image:
    return project.images.get(row=0)


def address(image: Image) -> str:
    return reverse("image-file", args=[image.pk, image.sha256[:16]])


def body(reply) -> bytes:
    return b"".join(reply.streaming_content)


def add_picture(project: Project, picture: Picture.Image, ending: str, **options: object) -> Image:
    """Write a picture into the media folder as an import would, and add it to the pool."""
    buffer = io.BytesIO()
    picture.save(buffer, format={"jpg": "JPEG"}.get(ending, ending.upper()), **options)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    name = f"{project.pk}/{digest[:2]}/{digest}.{ending}"
    path = Path(settings.MEDIA_ROOT) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    width, height = picture.size
    return Image.objects.create(
        project=project, row=99, file=name, sha256=digest, width=width, height=height, source_name=f"big.{ending}"
    )


def test_member_gets_the_very_file(image: Image, bob: User, as_user: AsUser) -> None:
    reply = as_user(bob).get(address(image))
    assert hashlib.sha256(body(reply)).hexdigest() == image.sha256
    assert reply["Content-Type"] == "image/png"


def test_browser_may_keep_it_for_good_and_runs_nothing_in_it(image: Image, bob: User, as_user: AsUser) -> None:
    reply = as_user(bob).get(address(image))
    assert reply["Cache-Control"] == "private, max-age=31536000, immutable"
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert reply["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert "Cookie" not in reply.get("Vary", "").replace("cookie", "Cookie") or reply["Cache-Control"].startswith(
        "private"
    )


def test_outsider_gets_nothing_not_even_a_thumbnail_that_is_there(
    image: Image, project: Project, bob: User, charlie: User, as_user: AsUser
) -> None:
    big = add_picture(project, Picture.new("RGB", (500, 300), "red"), "png")
    assert as_user(bob).get(address(big), {"size": "96"}).status_code == 200
    for target in (image, big):
        assert as_user(charlie).get(address(target)).status_code == 404
        assert as_user(charlie).get(address(target), {"size": "96"}).status_code == 404


@pytest.mark.parametrize("digest", ["0" * 16, "", "short", "whole"])
def test_address_must_hold_the_files_own_digest(image: Image, bob: User, as_user: AsUser, digest: str) -> None:
    shown = image.sha256 if digest == "whole" else digest
    assert as_user(bob).get(f"/media/{image.pk}/{shown}/").status_code == 404


def test_deleted_image_is_gone(image: Image, bob: User, as_user: AsUser) -> None:
    Image.objects.filter(pk=image.pk).update(deleted_at=timezone.now())
    assert as_user(bob).get(address(image)).status_code == 404


def test_known_picture_is_not_sent_again(image: Image, bob: User, charlie: User, as_user: AsUser) -> None:
    client = as_user(bob)
    tag = client.get(address(image))["ETag"]
    again = client.get(address(image), headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", tag)
    assert client.get(address(image), headers={"If-None-Match": '"other"'}).status_code == 200
    assert as_user(charlie).get(address(image), headers={"If-None-Match": tag}).status_code == 404


def test_links_are_not_followed(image: Image, bob: User, as_user: AsUser, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    path = Path(settings.MEDIA_ROOT) / image.file
    path.unlink()
    path.symlink_to(secret)
    assert as_user(bob).get(address(image)).status_code == 404


def test_folders_that_are_links_are_not_followed(image: Image, bob: User, as_user: AsUser, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    link = Path(settings.MEDIA_ROOT) / "link"
    link.symlink_to(tmp_path)
    Image.objects.filter(pk=image.pk).update(file="link/secret.png")
    assert as_user(bob).get(address(image)).status_code == 404


@pytest.mark.parametrize("name", ["../secret_key", "/etc/passwd", "gone.png", "."])
def test_nothing_outside_the_media_folder_is_sent(image: Image, bob: User, as_user: AsUser, name: str) -> None:
    Image.objects.filter(pk=image.pk).update(file=name)
    assert as_user(bob).get(address(image)).status_code == 404


def test_file_of_an_unknown_kind_is_a_download(image: Image, bob: User, as_user: AsUser) -> None:
    path = Path(settings.MEDIA_ROOT) / image.file
    path.rename(path.with_suffix(".html"))
    Image.objects.filter(pk=image.pk).update(file=image.file.replace(".png", ".html"))
    assert as_user(bob).get(address(image))["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
@pytest.mark.parametrize("size", [96, 240])
def test_thumbnail_is_small_and_whole(project: Project, bob: User, as_user: AsUser, mode: str, size: int) -> None:
    ending = "jpg" if mode == "CMYK" else "png"
    big = add_picture(project, Picture.new("RGB", (500, 300), "#336699").convert(mode), ending)
    reply = as_user(bob).get(address(big), {"size": size})
    assert (reply["Content-Type"], reply["ETag"]) == ("image/png", f'"{big.sha256[:32]}-{size}"')
    thumbnail = Picture.open(io.BytesIO(body(reply)))
    assert thumbnail.size == (size, round(size * 300 / 500))
    middle = thumbnail.convert("RGB").getpixel((size // 2, 20))
    grey = (95, 95, 95) if mode == "L" else (0x33, 0x66, 0x99)
    assert all(abs(have - want) < 12 for have, want in zip(middle, grey, strict=True))


def test_thumbnail_of_sixteen_bits_is_as_bright_as_the_picture(project: Project, bob: User, as_user: AsUser) -> None:
    ramp = np.linspace(0, 65_535, 400 * 400).reshape(400, 400).astype("uint16")
    big = add_picture(project, Picture.fromarray(ramp), "png")
    thumbnail = np.array(Picture.open(io.BytesIO(body(as_user(bob).get(address(big), {"size": "96"})))))
    assert abs(thumbnail.mean() - 127.5) < 1
    assert (thumbnail[2].mean() < 10, thumbnail[-3].mean() > 245) == (True, True)


def test_thumbnail_keeps_what_is_transparent(project: Project, bob: User, as_user: AsUser) -> None:
    big = add_picture(project, Picture.new("RGBA", (400, 400), (255, 0, 0, 0)).quantize(), "png")
    thumbnail = Picture.open(io.BytesIO(body(as_user(bob).get(address(big), {"size": "96"}))))
    assert thumbnail.getpixel((50, 50))[3] == 0


def test_thumbnail_is_made_once(project: Project, bob: User, as_user: AsUser, monkeypatch: pytest.MonkeyPatch) -> None:
    big = add_picture(project, Picture.new("RGB", (500, 300), "green"), "png")
    first = body(as_user(bob).get(address(big), {"size": "96"}))
    monkeypatch.setattr("annotator.importing.thumbnails._write", None)
    assert body(as_user(bob).get(address(big), {"size": "96"})) == first


def test_thumbnail_of_a_photo_that_was_turned_is_upright(project: Project, bob: User, as_user: AsUser) -> None:
    exif = Picture.Exif()
    exif[0x0112] = 6  # the camera was turned: what is stored as the left is the top
    halves = Picture.new("RGB", (600, 400), "white")
    halves.paste("black", (0, 0, 300, 400))
    big = add_picture(project, halves, "jpg", exif=exif)
    thumbnail = Picture.open(io.BytesIO(body(as_user(bob).get(address(big), {"size": "96"})))).convert("L")
    assert thumbnail.size == (64, 96)
    assert (thumbnail.getpixel((32, 10)) < 40, thumbnail.getpixel((32, 85)) > 215) == (True, True)


def test_pictures_are_read_for_thumbnails_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    Picture.new("L", (300, 300)).save(path)
    reading, most = [0], [0]

    def shrink(_picture: Picture.Image, size: int) -> Picture.Image:
        reading[0] += 1
        most[0] = max(most[0], reading[0])
        time.sleep(0.05)
        reading[0] -= 1
        return Picture.new("L", (size, size))

    monkeypatch.setattr(thumbnails, "_shrunk", shrink)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda one: thumbnails.thumbnail_of(path, sha256=f"{one:064x}", size=96), range(4)))
    assert (most[0], {kept.exists() for kept in made}) == (1, {True})


def test_small_picture_is_its_own_thumbnail(image: Image, bob: User, as_user: AsUser) -> None:
    reply = as_user(bob).get(address(image), {"size": "96"})
    assert hashlib.sha256(body(reply)).hexdigest() == image.sha256


def test_picture_that_cannot_be_made_smaller_is_sent_as_it_is(image: Image, bob: User, as_user: AsUser) -> None:
    (Path(settings.MEDIA_ROOT) / image.file).write_bytes(b"not a picture any more")
    assert body(as_user(bob).get(address(image), {"size": "96"})) == b"not a picture any more"


@pytest.mark.parametrize("size", ["97", "x", "9" * 5000, "\n96", "٩٦", "-96", "\x00"])
def test_strange_sizes_get_the_picture_itself(image: Image, bob: User, as_user: AsUser, size: str) -> None:
    reply = as_user(bob).get(address(image), {"size": size})
    assert (reply.status_code, reply["ETag"]) == (200, f'"{image.sha256[:32]}"')


def test_picture_costs_one_statement_beside_the_sign_in(image: Image, bob: User, as_user: AsUser) -> None:
    client = as_user(bob)
    with CaptureQueriesContext(connection) as captured:
        client.get(address(image))
    tables = [query["sql"].split(" FROM ")[1].split()[0].strip('"') for query in captured]
    assert tables == ["django_session", "auth_user", "annotator_image"]
