"""manage.py import_images: a folder, a zip or a list of URLs on the server's own disk into a project."""

import argparse
from pathlib import Path

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.actions.projects import ClassSpec, ProjectError, create_project
from annotator.importing.files import import_path
from annotator.importing.report import ImportReport, summary
from annotator.importing.sources import UnreadableSourceError
from annotator.management.progress_bar import Bar
from annotator.models import Membership, Project

NAMES_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Add the pictures of a folder, a zip or a list of URLs to a project. What cannot be used is named and left out."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's name in addresses (slug)")
        parser.add_argument("path", type=Path, help="a folder, a zip, one picture, or a list of URLs (.csv, .jsonl)")
        parser.add_argument(
            "--labels-from-folders",
            action="store_true",
            help="the first sub-folder, or a list's label, names its class",
        )
        parser.add_argument("--user", help="whose labels these are (default: the project's first admin)")
        parser.add_argument("--create", metavar="NAME", help="make the project first; --user becomes its admin")
        parser.add_argument("--classes", default="", help="the new project's classes, separated by commas")

    def handle(self, *_args: object, **options: object) -> None:
        arguments = argparse.Namespace(**options)
        project = self.find_or_create(arguments)
        user = find_user(arguments.user) if arguments.user else first_admin(project)
        if not project.memberships.filter(user=user).exists():
            raise CommandError(f"{user} is not in the project “{project.slug}”.")
        bar = Bar(self)
        try:
            report = import_path(
                project=project,
                path=arguments.path,
                labels_from_folders=arguments.labels_from_folders,
                user=user,
                progress=bar.show,
            )
        except UnreadableSourceError as error:
            raise CommandError(str(error)) from error
        finally:
            bar.finish()
        self.write_report(report)
        if report.imported == 0 and report.labelled == 0:
            raise CommandError("Nothing was imported.")

    def find_or_create(self, arguments: argparse.Namespace) -> Project:
        project = Project.objects.filter(slug=arguments.project).first()
        if arguments.create is None:
            if project is None:
                known = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)) or "none yet"
                raise CommandError(f"There is no project “{arguments.project}”. Projects: {known}.")
            return project
        if project is not None:
            raise CommandError(f"There is a project “{arguments.project}” already: leave --create out.")
        if not arguments.user:
            raise CommandError("--create needs --user, who becomes the project's admin.")
        return make_project(arguments)

    def write_report(self, report: ImportReport) -> None:
        stored = report.as_json()
        self.stdout.write(self.style.SUCCESS(f"{summary(stored)}."))
        if report.new_classes:
            self.stdout.write(f"New classes: {', '.join(report.new_classes)}")
        for groups in (report.problem_groups, report.duplicate_groups):
            for reason, group in groups.items():
                self.stdout.write(f"{group.count:,} × {reason}:")
                for name in group.names[:NAMES_SHOWN]:
                    self.stdout.write(f"    {name}")
                if group.count > NAMES_SHOWN:
                    self.stdout.write(f"    … and {group.count - NAMES_SHOWN:,} more")
        if report.stopped:
            raise CommandError(report.stopped)


def make_project(arguments: argparse.Namespace) -> Project:
    names = [name.strip() for name in arguments.classes.split(",") if name.strip()]
    classes = [ClassSpec(name=name) for name in names]
    user = find_user(arguments.user)
    try:
        return create_project(user=user, name=arguments.create, slug=arguments.project, classes=classes)
    except ProjectError as error:
        raise CommandError(str(error)) from error


def find_user(name: str) -> User:
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        raise CommandError(f"Nobody here is called “{name}”.")
    return user


def first_admin(project: Project) -> User:
    admin = project.memberships.filter(role=Membership.Role.ADMIN).select_related("user").order_by("pk").first()
    if admin is None:
        raise CommandError(f"The project “{project.slug}” has no admin: name somebody with --user.")
    return admin.user
