"""manage.py import_images: what it imports, what it says, and when it fails."""

import io
import zipfile
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from annotator.models import Annotation, Membership, Project
from tests.conftest import make_picture

pytestmark = pytest.mark.django_db


@pytest.fixture
def pictures(tmp_path: Path, settings: Settings) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    folder = tmp_path / "pictures"
    for number, name in enumerate(("cat/1.png", "cat/2.png", "newt/3.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_picture(number))
    return folder


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("import_images", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_folder_comes_in_and_progress_is_shown(project: Project, pictures: Path) -> None:
    out, err = run("animals", str(pictures))
    assert "3 images added." in out
    assert "100%  3 files read, 3 images added" in err
    assert (project.images.count(), Annotation.objects.count()) == (9, 0)


def test_labels_from_folders_are_the_first_admins(project: Project, pictures: Path, alice: User) -> None:
    out, _err = run("animals", str(pictures), "--labels-from-folders")
    assert "3 images added, 3 labelled from their folders or list." in out
    assert "New classes: newt" in out
    assert set(Annotation.objects.values_list("user", flat=True)) == {alice.pk}


def test_labels_are_those_of_the_user_named(project: Project, pictures: Path, bob: User) -> None:
    run("animals", str(pictures), "--labels-from-folders", "--user", "bob")
    assert set(Annotation.objects.values_list("user", flat=True)) == {bob.pk}


def test_files_left_out_are_named_with_the_reason(project: Project, pictures: Path) -> None:
    (pictures / "notes.txt").write_text("notes")
    for number in range(25):
        (pictures / f"empty{number:02d}.png").touch()
    out, _err = run("animals", str(pictures))
    assert "1 × not a picture in a known format:\n    notes.txt\n" in out
    assert "25 × the file is empty (0 bytes):\n    empty00.png\n" in out
    assert "… and 5 more" in out
    assert "empty20.png" not in out


def test_project_can_be_made_on_the_way(alice: User, pictures: Path) -> None:
    run("pond", str(pictures), "--create", "Life in the pond", "--classes", "cat, dog", "--user", "alice")
    project = Project.objects.get(slug="pond")
    assert (project.name, project.images.count()) == ("Life in the pond", 3)
    assert list(project.classes.values_list("name", flat=True)) == ["cat", "dog"]
    assert project.memberships.get().role == Membership.Role.ADMIN


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing", "PATH"], "There is no project “nothing”. Projects: animals."),
        (["animals", "/nowhere/at/all"], "There is no file or folder “/nowhere/at/all”."),
        (["animals", "PATH", "--user", "nobody"], "Nobody here is called “nobody”."),
        (["animals", "PATH", "--user", "charlie"], "charlie is not in the project “animals”."),
        (["animals", "PATH", "--create", "Animals", "--user", "alice"], "There is a project “animals” already"),
        (["new-one", "PATH", "--create", "New one"], "--create needs --user"),
        (["new", "PATH", "--create", "New", "--user", "alice"], "“new” is the address of another page"),
        (["no good", "PATH", "--create", "X", "--user", "alice"], "slug: Enter a valid “slug”"),
        (["new-one", "PATH", "--create", "X", "--user", "alice", "--classes", "a,A"], "“A” is there twice"),
    ],
)
def test_mistakes_are_one_sentence(
    project: Project, charlie: User, pictures: Path, arguments: list[str], sentence: str
) -> None:
    with pytest.raises(CommandError) as caught:
        run(*[str(pictures) if argument == "PATH" else argument for argument in arguments])
    assert sentence in str(caught.value)
    assert Project.objects.count() == 1


def test_import_of_nothing_fails(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    with pytest.raises(CommandError, match="Nothing was imported"):
        run("animals", str(folder))


def test_import_that_only_repeats_fails(project: Project, pictures: Path) -> None:
    run("animals", str(pictures))
    with pytest.raises(CommandError, match="Nothing was imported"):
        run("animals", str(pictures))


def test_bomb_is_reported_after_what_came_in(project: Project, pictures: Path, settings: Settings) -> None:
    settings.UNZIPPED_MAX_BYTES = 100_000
    path = pictures / "in.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", make_picture(50))
        archive.writestr("bomb", bytes(500_000))
    with pytest.raises(CommandError, match="decompression bomb"):
        run("animals", str(path))
    assert project.images.count() == 7
