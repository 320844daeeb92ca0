"""manage.py simulate: the project's own labels given one by one to each strategy."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from PIL import Image as Picture

from alcore import comparison
from alcore.simulation import simulate
from alcore.training import TrainingOptions
from annotator.learner.simulating import labelled_pool, majority
from annotator.management.commands import simulate as command
from tests.annotator.learner_steps import label, label_rows

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def labelled(digit_project, monkeypatch):
    """Sixty labelled scans, and networks that are trained for a moment."""
    brief = {"training": TrainingOptions(epochs=1, minimum_steps=3)}
    monkeypatch.setattr(comparison, "simulate", lambda *study, **options: simulate(*study, **{**options, **brief}))
    project = digit_project(count=80)
    label_rows(project, range(60))
    return project


def run(out: Path, *options: str) -> str:
    written = StringIO()
    defaults = ["--strategies", "lookahead-linear", "random", "--seeds", "2", "--labels", "24", "--held-out", "20"]
    call_command("simulate", "digits", "--out", str(out), *defaults, *options, stdout=written, stderr=StringIO())
    return written.getvalue()


def test_it_writes_the_curves_as_json_and_as_a_picture(labelled, tmp_path):
    words = run(tmp_path / "new")
    report = json.loads((tmp_path / "new" / "simulation.json").read_text())
    assert set(report["strategies"]) == {"lookahead-linear", "random"}
    assert report["network"] == "the small network, from scratch, on images of 32 pixels"
    assert len(report["runs"]) == 4
    assert all(len(set(run["rows"])) == 24 for run in report["runs"])
    assert 0 <= report["strategies"]["random"]["auc"] <= 1
    assert "lookahead-linear" in words
    with Picture.open(tmp_path / "new" / "simulation.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 400
    assert not (tmp_path / "new" / "simulation.partial.json").exists()


def test_only_labelled_images_are_used_with_the_class_most_labels_name(labelled):
    label(labelled, 0, index=(labelled.truth[0] + 1) % 10)
    label(labelled, 0)
    pool = labelled_pool(labelled, at_least=1, progress=lambda *_: None)
    assert len(pool.images) == 60
    assert pool.labels.tolist() == [labelled.truth[row] for row in range(60)]
    assert majority([4, 2, 2, 4]) == 2


def test_a_stopped_simulation_goes_on_and_ends_in_the_same_figures(labelled, tmp_path, monkeypatch):
    run(tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "simulation.json").read_text())

    def interrupted(path: Path, text: str) -> None:
        write(path, text)
        if len(json.loads(text)["runs"]) == 3:
            raise KeyboardInterrupt

    write = command.write_whole
    monkeypatch.setattr(command, "write_whole", interrupted)
    with pytest.raises(CommandError, match="The same command goes on where it was") as stopped:
        run(tmp_path / "stopped")
    assert stopped.value.returncode == 130
    monkeypatch.setattr(command, "write_whole", write)
    kept = json.loads((tmp_path / "stopped" / "simulation.partial.json").read_text())["runs"]
    assert [len(run["rows"]) for run in kept] == [24, 24, 1]
    run(tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / "simulation.json").read_text()) == whole


def test_runs_on_other_labels_are_never_gone_on_with(labelled, tmp_path):
    (tmp_path / "simulation.partial.json").write_text(json.dumps({"settings": {"project": "digits"}, "runs": []}))
    with pytest.raises(CommandError, match="another simulation, or labels came since: move it away"):
        run(tmp_path)
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "simulation.partial.json").write_text(damaged)
        with pytest.raises(CommandError, match=r"cannot be read .* move it away"):
            run(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--labels", "100"], "“Digits” has 60 labelled images; this simulation needs 102"),
        (["--strategies", "best"], "no strategy 'best'; there are lookahead-linear, lookahead-network, "),
        (["--held-out", "50"], "24 labels and 50 held-out images are more than 60 images"),
        (["--held-out", "0"], "a comparison needs .* got 2, 2, 24 and 0"),
        (["--seeds", "0"], "a comparison needs strategies, seeds, labels and held-out images"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_words(labelled, tmp_path, options, words):
    with pytest.raises(CommandError, match=words):
        run(tmp_path, *options)


def test_a_folder_that_cannot_be_written_is_named(labelled, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CommandError, match=r"The results cannot be written: .*taken"):
        run(tmp_path / "taken")


def test_a_picture_that_is_gone_is_not_taken_for_a_folder_that_cannot_be_written(labelled, tmp_path):
    (Path(settings.MEDIA_ROOT) / labelled.images.first().file).unlink()
    with pytest.raises(CommandError, match=r"^(?!.*written).*no such file"):
        run(tmp_path)


def test_labels_of_one_class_cannot_be_learned_from(digit_project, tmp_path):
    project = digit_project(count=40)
    for row in range(30):
        label(project, row, index=3)
    with pytest.raises(CommandError, match="name one class"):
        run(tmp_path)


def test_a_project_that_does_not_exist_is_named(db, tmp_path):
    with pytest.raises(CommandError, match="There is no project “digits”"):
        run(tmp_path)
