"""The first start on an empty data folder: accounts with random passwords, and the demo project."""

import secrets
import sys
from argparse import ArgumentParser
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.db import transaction
from django.urls import reverse

from annotator import one_time
from annotator.importing.demo import make_demo_project

ADMIN = "admin"
ANNOTATORS = ("annotator1", "annotator2")
# There from before the first account until the demo is whole: a start that was cut short goes on where it was.
UNFINISHED = "first-start-unfinished"


class Command(BaseCommand):
    help = "Makes an admin, two annotators and the demo project when there is no account yet; else does nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the pages will be, for the link")

    def handle(self, *_args: str, **options: str) -> None:
        unfinished = Path(settings.DATA_DIR) / UNFINISHED
        if not User.objects.exists():
            unfinished.touch()
            self.tell_accounts(make_accounts(), url=options["url"])
        if unfinished.exists():
            self.make_demo()
            unfinished.unlink()

    def tell_accounts(self, passwords: dict[str, str], *, url: str) -> None:
        path = reverse("one-time-login", args=[one_time.make_token(User.objects.get(username=ADMIN))])
        self.stdout.write("\nThis is the first start. Keep these passwords, they are not shown again:\n")
        for name, password in passwords.items():
            self.stdout.write(f"    {name:<12} {password}")
        self.stdout.write(f"\nOr sign in as {ADMIN} with this link, which works once and for a day:\n    {url}{path}\n")
        self.stdout.flush()

    def make_demo(self) -> None:
        people = {user.username: user for user in User.objects.filter(username__in=[ADMIN, *ANNOTATORS])}
        if ADMIN not in people:
            return
        annotators = [people[name] for name in ANNOTATORS if name in people]
        self.stdout.write("Making the demo project")
        make_demo_project(
            admin=people[ADMIN],
            annotators=annotators,
            upload_folder=Path(settings.FILE_UPLOAD_TEMP_DIR),
            progress=self.tell_progress if sys.stdout.isatty() else None,
        )

    def tell_progress(self, share: float, words: str) -> None:
        self.stdout.write(f"\r  {share:4.0%}  {words}", ending="\n" if share >= 1.0 else "")
        self.stdout.flush()


@transaction.atomic
def make_accounts() -> dict[str, str]:
    """Make an admin, who may use Django's admin pages too, and two annotators; return their passwords by name."""
    passwords = {name: secrets.token_urlsafe(12) for name in (ADMIN, *ANNOTATORS)}
    User.objects.create_superuser(ADMIN, password=passwords[ADMIN])
    for name in ANNOTATORS:
        User.objects.create_user(name, password=passwords[name])
    return passwords
