"""The demo project: scans of real handwritten digits, written out as pictures without their labels.

The scans are scikit-learn's copy of the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and
C. Kaynak, 1998): 1,797 digits of 8 x 8 pixels, 17 shades. Their order is shuffled and their names are numbers, so that
neither says which digit a picture shows.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from django.contrib.auth.models import User
from numpy.typing import NDArray
from PIL import Image as Picture

from annotator.actions.projects import ClassSpec, add_member, create_project
from annotator.importing.files import Progress, import_path
from annotator.models import Membership, Project

NAME = "Handwritten digits"
GUIDELINES = "Which digit did the person write? Skip a scan that could be two digits, and flag it if nobody could tell."
MAGNIFICATION = 8
SHADES = 16
ORDER_SEED = 20_260_721


def make_demo_project(
    *,
    admin: User,
    annotators: Sequence[User],
    upload_folder: Path,
    progress: Progress | None = None,
) -> Project:
    """Return the demo project with all its images, made or completed; running it twice adds nothing."""
    project = Project.objects.filter(name=NAME, created_by=admin).first()
    if project is None:
        classes = [ClassSpec(name=str(digit), key=str(digit)) for digit in range(10)]
        project = create_project(user=admin, name=NAME, classes=classes, guidelines=GUIDELINES, seed=0)
    members = set(project.memberships.values_list("user_id", flat=True))
    for annotator in annotators:
        if annotator.pk not in members:
            add_member(project=project, username=annotator.username, role=Membership.Role.ANNOTATOR)
    upload_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=upload_folder) as folder:
        write_scans(Path(folder))
        import_path(project=project, path=Path(folder), user=admin, progress=progress)
    return project


def write_scans(folder: Path) -> int:
    """Write every scan as a grey PNG of 64 x 64 pixels, in an order that says nothing, and return how many."""
    scans = load_scans()
    order = np.random.default_rng(ORDER_SEED).permutation(len(scans))
    for number, row in enumerate(order, start=1):
        Picture.fromarray(enlarge(scans[row])).save(folder / f"scan-{number:04d}.png", optimize=True)
    return len(scans)


def load_scans() -> NDArray[np.float64]:  # (1797, 8, 8), 0 to 16
    # Loaded here alone: the web process never needs scikit-learn.
    from sklearn.datasets import load_digits

    scans: NDArray[np.float64] = load_digits().images
    return scans


def enlarge(scan: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the scan with sharp pixels and its shades spread over 0 to 255."""
    grey = np.rint(scan * (255 / SHADES)).astype(np.uint8)
    return grey.repeat(MAGNIFICATION, axis=0).repeat(MAGNIFICATION, axis=1)
