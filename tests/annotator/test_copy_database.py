"""Everything goes from SQLite to PostgreSQL and back, unchanged, with ids that go on; nothing is ever overwritten."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.running_services import find_program, fresh_database
from tests.conftest import make_picture

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
# What a person who takes the copy over would see: every row of every table, and the id that comes next.
DESCRIBE = """
import json
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.db import connection
from annotator.management.copying import last_id, stored_models

rows = {}
for model in stored_models():
    if model._meta.auto_created:
        found = [list(row) for row in model._base_manager.order_by("pk").values_list()]
    else:
        found = json.loads(serializers.serialize("json", model._base_manager.order_by("pk")))
    rows[model._meta.db_table] = found
ids = {model._meta.db_table: last_id(model, connection) for model in stored_models() if model._meta.auto_field}
print(json.dumps({"rows": rows, "ids": ids}))
"""
FILL = """
from django.contrib.auth.models import Group, Permission, User
from django.utils import timezone
from annotator.models import Annotation, AnnotationSession, Image, Job, LabelClass, Membership, Project, Query
import uuid

project = Project.objects.get(slug="moved")
boss = User.objects.get(username="root")
group = Group.objects.create(name="Übersetzer — 翻訳")
group.permissions.set(Permission.objects.all()[:5])
boss.groups.add(group)
first = LabelClass.objects.create(project=project, name="Grün “é”", index=0, key="g")
gone = Project.objects.create(name="Gone", slug="gone", created_by=boss)
gone.delete()
Job.objects.create(project=project, kind="train", options={"a": [1, None, {"b": "ü"}], "nothing": None}, report={})
session = AnnotationSession.objects.create(user=boss, project=project, seed=2**31)
image = project.images.order_by("row").first()
query = Query.objects.create(
    project=project, session=session, image=image, number=1, lease_until=timezone.now(), score=1e-17
)
label = Annotation.objects.create(
    project=project, image=image, user=boss, query=query, kind="label", label_class=first, client_key=uuid.uuid4(),
    comment="two\\nlines, “quoted”",
)
Annotation.objects.create(
    project=project, image=image, user=boss, query=query, kind="withdraw", client_key=uuid.uuid4(), supersedes=label
)
"""
NEW_PROJECT = "from annotator.models import Project; Project.objects.create(name='new', slug='new')"


def run(data: Path, url: str, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "FORESIGHT_DATA": str(data),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DJANGO_SUPERUSER_PASSWORD": "a long password for nobody",
        "DATABASE_URL": url,
    }
    environment.pop("TARGET_DATABASE_URL", None)
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=300, check=False
    )


def manage(data: Path, url: str, *arguments: str, stdin: str = "") -> str:
    done = run(data, url, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def describe(data: Path, url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manage(data, url, "shell", "--no-imports", "--command", DESCRIBE))
    return found


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose SQLite database has rows of many kinds, and a project that is gone."""
    folder = tmp_path_factory.mktemp("data")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(make_picture(number, size=8))
    url = url_of(folder / "foresight.sqlite3")
    manage(folder, url, "migrate", "--verbosity=0")
    manage(folder, url, "createsuperuser", "--noinput", "--username=root", "--email=root@example.com")
    manage(folder, url, "import_images", "moved", str(pictures), "--create", "Moved", "--user", "root")
    manage(folder, url, "shell", "--no-imports", "--command", FILL)
    return folder


@pytest.fixture
def source(data: Path) -> str:
    return url_of(data / "foresight.sqlite3")


def test_everything_arrives_in_postgresql_and_comes_back(
    data: Path, source: str, postgres_url: str, tmp_path: Path
) -> None:
    there = describe(data, source)
    assert len(there["rows"]["annotator_annotation"]) == 2
    assert there["ids"]["annotator_project"] == 2

    said = run(data, source, "copy_database", postgres_url)

    assert said.returncode == 0, said.stderr
    assert "100%" in said.stderr
    rows = sum(len(found) for found in there["rows"].values())
    assert f"{rows} rows in" in said.stdout
    assert describe(data, postgres_url) == there
    # A new row gets an id that no row ever had, a deleted one neither: its files may still be there.
    manage(data, postgres_url, "shell", "--no-imports", "--command", NEW_PROJECT)
    changed = describe(data, postgres_url)
    assert [row["pk"] for row in changed["rows"]["annotator_project"]] == [1, 3]

    back = url_of(tmp_path / "back.sqlite3")
    manage(data, postgres_url, "copy_database", back)

    assert describe(data, back) == changed
    manage(data, back, "shell", "--no-imports", "--command", NEW_PROJECT.replace("new", "newer"))
    assert [row["pk"] for row in describe(data, back)["rows"]["annotator_project"]] == [1, 3, 4]


def test_a_database_that_holds_anything_is_not_touched(data: Path, source: str, postgres_url: str) -> None:
    manage(data, postgres_url, "migrate", "--verbosity=0")
    manage(data, postgres_url, "createsuperuser", "--noinput", "--username=other", "--email=other@example.com")
    before = describe(data, postgres_url)
    refused = run(data, source, "copy_database", postgres_url)
    assert refused.returncode != 0
    assert "The target is not empty (auth_user has rows)" in refused.stderr
    assert describe(data, postgres_url) == before


def test_what_one_value_prevents_leaves_nothing_behind(data: Path, postgres_url: str, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.sqlite3"
    shutil.copy(data / "foresight.sqlite3", spoilt)
    with contextlib.closing(sqlite3.connect(spoilt)) as database, database:
        database.execute("UPDATE annotator_labelclass SET name = ?", ["zero\0byte"])
    refused = run(data, url_of(spoilt), "copy_database", postgres_url)
    assert refused.returncode != 0
    assert "PostgreSQL refused a row of annotator_labelclass" in refused.stderr
    left = describe(data, postgres_url)["rows"]
    assert left["auth_user"] == left["annotator_project"] == left["annotator_image"] == []
    # It is empty, so it can be tried again.
    with contextlib.closing(sqlite3.connect(spoilt)) as database, database:
        database.execute("UPDATE annotator_labelclass SET name = ?", ["mended"])
    manage(data, url_of(spoilt), "copy_database", postgres_url)
    assert describe(data, postgres_url) == describe(data, url_of(spoilt))


def test_rows_that_point_nowhere_are_not_taken_over(data: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.sqlite3"
    shutil.copy(data / "foresight.sqlite3", spoilt)
    with contextlib.closing(sqlite3.connect(spoilt)) as database, database:
        database.execute("UPDATE annotator_labelclass SET project_id = 77")
    refused = run(data, url_of(spoilt), "copy_database", url_of(tmp_path / "target.sqlite3"))
    assert refused.returncode != 0
    assert "A database refused" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert describe(data, url_of(tmp_path / "target.sqlite3"))["rows"]["auth_user"] == []


def test_nothing_is_copied_while_a_worker_is_alive(data: Path, tmp_path: Path) -> None:
    busy = tmp_path / "busy.sqlite3"
    shutil.copy(data / "foresight.sqlite3", busy)
    beat = "from annotator.actions.workers import beat_worker; beat_worker(kind='learner', name='learner@here', pid=77)"
    manage(data, url_of(busy), "shell", "--no-imports", "--command", beat)
    refused = run(data, url_of(busy), "copy_database", url_of(tmp_path / "target.sqlite3"))
    assert refused.returncode != 0
    assert "The learner worker (process 77) was alive" in refused.stderr
    assert "Stop the server" in refused.stderr
    assert not (tmp_path / "target.sqlite3").exists()


def test_a_database_of_an_older_version_is_migrated_first(data: Path, source: str, tmp_path: Path) -> None:
    empty = url_of(tmp_path / "empty.sqlite3")
    refused = run(data, empty, "copy_database", url_of(tmp_path / "target.sqlite3"))
    assert refused.returncode != 0
    assert "run manage.py migrate on it first" in refused.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "Name the database to copy to"),
        (["mysql://host/name"], "sqlite:///PATH or postgres://"),
        (["postgres://foresight:secret@127.0.0.1:1/nothing"], "A database refused"),
    ],
)
def test_a_wrong_target_is_explained(data: Path, source: str, arguments: list[str], words: str) -> None:
    refused = run(data, source, "copy_database", *arguments)
    assert refused.returncode != 0
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr


def test_a_backup_of_postgresql_brings_everything_back(
    data: Path, source: str, postgres_url: str, service_urls: tuple[str, str], tmp_path: Path
) -> None:
    manage(data, source, "copy_database", postgres_url)
    backup = tmp_path / "foresight.dump"
    with backup.open("wb") as file:
        subprocess.run([find_program("pg_dump"), "--format=custom", postgres_url], stdout=file, check=True)
    with fresh_database(service_urls[0]) as restored:
        restore = [find_program("pg_restore"), f"--dbname={restored}", "--single-transaction", str(backup)]
        subprocess.run(restore, check=True)
        assert describe(data, restored) == describe(data, source)
