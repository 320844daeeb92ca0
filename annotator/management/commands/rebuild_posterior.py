"""manage.py rebuild_posterior: the model's belief made again from the labels, and compared with what was there."""

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotator.learner.rebuilding import Comparison, rebuild
from annotator.learner.state import UNUSABLE
from annotator.models import Linearization, Project


class Command(BaseCommand):
    help = (
        "Compare each project's posterior, on disk and as served, with one rebuilt from the labels in the database, "
        "and replace the file by the rebuilt one. A running learner reads it at its next pass."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("projects", nargs="*", metavar="project", help="names in addresses (slugs); default: all")
        parser.add_argument("--check", action="store_true", help="only compare; fails when something differs")

    def handle(self, *_args: object, **options: object) -> None:
        differing = []
        for linearization in find_live(list(options["projects"])):  # type: ignore[call-overload]
            comparison = self.rebuild_one(linearization, write=not options["check"])
            if not comparison.agrees:
                differing.append(linearization.project.slug)
        if differing and options["check"]:
            raise CommandError(f"The posterior differs from the labels in: {', '.join(differing)}.")

    def rebuild_one(self, linearization: Linearization, *, write: bool) -> Comparison:
        project, number = linearization.project, linearization.network_version.number
        self.stdout.write(f"{project.slug}: network {number}, linearised over {linearization.image_count:,} images")
        try:
            comparison = rebuild(project, linearization, write=write, tell=self.tell)
        except UNUSABLE as error:
            words = "Start the workers again: the learner then has them made anew."
            raise CommandError(f"The features of “{project.slug}” cannot be used: {error}. {words}") from error
        for line in in_words(comparison, written=write):
            self.stdout.write(f"  {line}")
        return comparison

    def tell(self, words: str) -> None:
        self.stdout.write(f"  … {words}")
        self.stdout.flush()


def find_live(slugs: list[str]) -> list[Linearization]:
    """Return the live linearisations of these projects, or of all. Raises CommandError."""
    live = Linearization.objects.filter(state=Linearization.State.LIVE).select_related("project", "network_version")
    found = list(live.filter(project__slug__in=slugs) if slugs else live)
    missing = sorted(set(slugs) - {linearization.project.slug for linearization in found})
    for slug in missing:
        if not Project.objects.filter(slug=slug).exists():
            raise CommandError(f"There is no project “{slug}”.")
        raise CommandError(f"“{slug}” has no model yet: its images are still to be prepared.")
    return sorted(found, key=lambda linearization: linearization.project.slug)


def in_words(comparison: Comparison, *, written: bool) -> list[str]:
    """Say what was compared and what came out."""
    labels, images = f"its {comparison.labels_in_file:,} labels", f"{comparison.differing:,} images"
    if comparison.problem:
        file = f"file: could not be read ({comparison.problem})"
    elif comparison.differing:
        file = f"file: {labels} differ from the database's on {images}"
    else:
        file = f"file: {labels} are the database's; {comparison.later:,} annotations came after it"
    served = "served: there is no ranking to compare"
    if comparison.served:
        served = (
            f"served: {comparison.served:,} predictions differ by at most {comparison.largest:.1e} from rebuilt ones"
        )
    done = f"rebuilt from {comparison.labels:,} labels" + (", and written" if written else ", nothing was written")
    return [file, served, done]
