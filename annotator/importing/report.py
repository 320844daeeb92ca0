"""What became of every file of an import, grouped by reason so that it stays readable however many there are."""

from dataclasses import dataclass, field

NAMES_KEPT = 100
MAX_NAME = 500

ALREADY_HERE = "already in this project"
TWICE = "the same picture twice in this upload"


@dataclass
class Group:
    """Files with the same fate: how many, and the names of the first hundred."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < NAMES_KEPT:
            self.names.append(name)


@dataclass
class ImportReport:
    """Numbers and names of one import; `stopped` says in words why the rest was not read, "" when all was.

    `label_groups` are labels that were not taken, though their images were.
    """

    imported: int = 0
    labelled: int = 0
    without_folder: int = 0
    new_classes: list[str] = field(default_factory=list)
    duplicate_groups: dict[str, Group] = field(default_factory=dict)
    problem_groups: dict[str, Group] = field(default_factory=dict)
    label_groups: dict[str, Group] = field(default_factory=dict)
    stopped: str = ""

    @property
    def duplicates(self) -> int:
        return sum(group.count for group in self.duplicate_groups.values())

    @property
    def problem_count(self) -> int:
        return sum(group.count for group in self.problem_groups.values())

    @property
    def problems(self) -> list[tuple[str, str]]:
        """The named problems as (file name, reason); the first hundred of each reason."""
        return [(name, reason) for reason, group in self.problem_groups.items() for name in group.names]

    def add_problem(self, name: str, reason: str) -> None:
        self.problem_groups.setdefault(reason, Group()).add(name)

    def add_duplicate(self, name: str, reason: str) -> None:
        self.duplicate_groups.setdefault(reason, Group()).add(name)

    def add_wrong_label(self, name: str, reason: str) -> None:
        self.label_groups.setdefault(reason, Group()).add(name)

    def as_json(self) -> dict[str, object]:
        """Return what Job.report stores and the pages show."""
        return {
            "imported": self.imported,
            "duplicates": self.duplicates,
            "problems": self.problem_count,
            "labelled": self.labelled,
            "without_folder": self.without_folder,
            "new_classes": self.new_classes[:NAMES_KEPT],
            "stopped": self.stopped,
            "groups": [
                {"reason": reason, "count": group.count, "names": group.names, "problem": problem}
                for groups, problem in (
                    (self.problem_groups, True),
                    (self.label_groups, True),
                    (self.duplicate_groups, False),
                )
                for reason, group in groups.items()
            ],
        }


def summary(report: dict[str, object]) -> str:
    """Return a stored report's numbers as one sentence."""
    imported, duplicates, problems = (int(str(report.get(key, 0))) for key in ("imported", "duplicates", "problems"))
    words = [f"{imported:,} {'image' if imported == 1 else 'images'} added"]
    if report.get("labelled"):
        words.append(f"{report['labelled']:,} labelled from their folders or list")
    if duplicates:
        words.append(f"{duplicates:,} there already")
    if problems:
        words.append(f"{problems:,} left out")
    return ", ".join(words)
