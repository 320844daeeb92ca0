"""A small project for the fault tests, made in a server's database before or while it runs: run as a program.

python -m tests.faults.pool SLUG COUNT NAME...
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.faults.people import PASSWORD


def make_pool(slug: str, count: int, names: list[str]) -> None:
    """Make the people and a project of the first scans of digits; the learner's workers prepare it when they run."""
    from django.contrib.auth.models import User
    from PIL import Image as Picture

    from annotator.actions.projects import ClassSpec, add_member, create_project
    from annotator.importing.demo import enlarge, load_scans
    from annotator.importing.files import import_path
    from annotator.models import Membership, Project

    admin = User.objects.filter(username="boss").first() or User.objects.create_superuser("boss", password=PASSWORD)
    classes = [ClassSpec(name=str(digit), key=str(digit)) for digit in range(10)]
    project = create_project(user=admin, name=slug, slug=slug, classes=classes, seed=1, audit_share=0.0)
    # After the first network none is trained: it would come at some moment in the middle of a test.
    Project.objects.filter(pk=project.pk).update(retrain_growth=10.0)
    for name in names:
        if not User.objects.filter(username=name).exists():
            User.objects.create_user(name, password=PASSWORD)
        add_member(project=project, username=name, role=Membership.Role.ANNOTATOR)
    with tempfile.TemporaryDirectory() as folder:
        for number, scan in enumerate(load_scans()[:count]):
            Picture.fromarray(enlarge(scan)).save(Path(folder) / f"{number:04d}.png")
        report = import_path(project=project, path=Path(folder), user=admin)
    assert report.imported == count


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    make_pool(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
