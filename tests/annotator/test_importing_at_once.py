"""Two imports into one pool at the same moment, as two processes on one real database."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.conftest import make_picture

ROOT = Path(__file__).resolve().parents[2]
SHARED, COUNT = 40, 250


def manage(data: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "FORESIGHT_DATA": str(data),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DJANGO_SUPERUSER_PASSWORD": "a long password for nobody",
        "DATABASE_URL": f"sqlite:///{data / 'foresight.sqlite3'}",
    }
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _nothing = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def test_rows_stay_consecutive_and_each_picture_comes_in_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = tmp_path / "first"
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for picture in range(COUNT):
            seed = picture if picture < SHARED else 1_000 * (number + 1) + picture
            (folder / f"{picture:03d}.png").write_bytes(make_picture(seed, size=8))
    first.mkdir()
    (first / "first.png").write_bytes(make_picture(9_999))
    finish(manage(data, "migrate", "--verbosity=0"))
    finish(manage(data, "createsuperuser", "--noinput", "--username=root", "--email=root@example.com"))
    finish(manage(data, "import_images", "busy", str(first), "--create", "Busy", "--user", "root"))

    for process in [manage(data, "import_images", "busy", str(folder)) for folder in folders]:
        finish(process)

    database = sqlite3.connect(data / "foresight.sqlite3")
    rows = database.execute("SELECT row, file, sha256 FROM annotator_image ORDER BY row").fetchall()
    total = 1 + 2 * COUNT - SHARED
    assert [row for row, _file, _sha256 in rows] == list(range(total))
    assert len({sha256 for _row, _file, sha256 in rows}) == total
    stored = {str(path.relative_to(data / "media")) for path in (data / "media").rglob("*") if path.is_file()}
    assert stored == {file for _row, file, _sha256 in rows}
