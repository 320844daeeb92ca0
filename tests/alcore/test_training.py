"""Training fits the labels, the same way each time, and says what it did."""

import pytest
import torch
from PIL import Image

from alcore.datasets import ImageFiles, Preprocessing
from alcore.network import NetworkOutputError, build_network, outputs, weights_hash
from alcore.training import (
    STRENGTHS,
    LabelOutsideClassesError,
    OneAnswerError,
    TrainingDataError,
    TrainingDivergedError,
    TrainingOptions,
    _peak_rate,
    _probe_head,
    _shifted,
    one_hot,
    shrink_and_perturb_,
    train,
)


def network(seed=0):
    return build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(channels=1), seed=seed)


def bars(count=12):
    """Three classes: a bright bar on top, in the middle, at the bottom, in noise."""
    generator = torch.Generator().manual_seed(0)
    images = 0.2 * torch.rand(count, 1, 32, 32, generator=generator)
    labels = torch.arange(count) % 3
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 3 + 10 * label : 9 + 10 * label] += 0.7
    return images, torch.eye(3)[labels]


SHORT = TrainingOptions(epochs=1, minimum_steps=30)


def test_training_fits_the_labels_and_lowers_the_loss():
    images, targets = bars()
    module = network()
    report = train(module, images, targets, options=TrainingOptions(epochs=1, minimum_steps=80))
    assert report.training_accuracy == 1.0
    assert report.losses[-1] < 0.2 * report.losses[0]
    assert not module.training
    assert torch.equal(outputs(module, images).argmax(dim=1), targets.argmax(dim=1))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    images, targets = bars(40)
    hashes = []
    for seed in (1, 1, 2):
        module = network()
        train(module, images, targets, options=TrainingOptions(epochs=1, minimum_steps=10, seed=seed))
        hashes.append(weights_hash(module))
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_training_ends_early_once_the_loss_is_below_the_threshold():
    images, targets = bars()
    report = train(network(), images, targets, options=TrainingOptions(epochs=50, minimum_steps=500, stop_below=0.05))
    assert report.steps < 500
    assert report.losses[-1] < 0.05
    assert all(loss >= 0.05 for loss in report.losses[:-1])


def test_few_labels_get_the_minimum_of_steps_and_many_labels_their_epochs():
    images, targets = bars(6)
    few = train(network(), images, targets, options=TrainingOptions(epochs=2, minimum_steps=7, stop_below=0))
    many = train(
        network(), images, targets, options=TrainingOptions(epochs=5, minimum_steps=7, batch_size=2, stop_below=0)
    )
    assert few.steps == 7
    assert many.steps == 15
    assert many.epochs == 5


def test_progress_grows_to_one_and_a_stop_is_obeyed_at_once():
    images, targets = bars()
    seen = []
    train(
        network(),
        images,
        targets,
        options=TrainingOptions(epochs=1, minimum_steps=5, stop_below=0),
        progress=lambda share, message: seen.append((share, message)),
    )
    assert [share for share, _ in seen] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert seen[0][1] == "training step 1 of at most 5"
    report = train(network(), images, targets, options=SHORT, should_stop=lambda: True)
    assert report.stopped
    assert report.steps == 1


def test_the_probe_moves_the_head_alone_and_a_gentler_strength_leaves_less_energy():
    images, targets = bars()
    module = network()
    body = weights_hash(module.body)
    head = weights_hash(module.head)
    _probe_head(module, images, targets, steps=5)
    assert weights_hash(module.body) == body
    assert weights_hash(module.head) != head
    energies = [train(network(), images, targets, options=options).energy for options in OPTIONS_BY_STRENGTH]
    assert energies[0] < energies[1] < energies[2]


OPTIONS_BY_STRENGTH = [TrainingOptions(strength=name, epochs=1, minimum_steps=1) for name in STRENGTHS]


def test_frozen_parameters_stay_as_they_are():
    images, targets = bars()
    module = network()
    module.body.requires_grad_(False)
    before = weights_hash(module.body)
    train(module, images, targets, options=SHORT)
    assert weights_hash(module.body) == before


def test_shifts_move_whole_images_and_repeat_the_edges():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    moved = [_shifted(images, 1, torch.Generator().manual_seed(seed))[0, 0] for seed in range(40)]
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")[0, 0]
    windows = [padded[down : down + 4, right : right + 4] for down in range(3) for right in range(3)]
    assert all(any(torch.equal(image, window) for window in windows) for image in moved)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 9
    assert torch.equal(_shifted(images, 0, torch.Generator()), images)


def test_label_smoothing_lowers_the_largest_output():
    images, targets = bars()
    tops = []
    for smoothing in (0.0, 0.6):
        module = network()
        options = TrainingOptions(epochs=1, minimum_steps=80, label_smoothing=smoothing)
        train(module, images, targets, options=options)
        tops.append(outputs(module, images).max(dim=1).values.mean())
    assert tops[0] == pytest.approx(1.0, abs=0.15)
    assert tops[1] == pytest.approx(0.6, abs=0.15)


def test_data_that_cannot_be_trained_on_is_explained():
    images, targets = bars()
    with pytest.raises(TrainingDataError, match="no labelled images"):
        train(network(), images[:0], targets[:0], options=SHORT)
    with pytest.raises(TrainingDataError, match=r"got shape \(12, 2\)"):
        train(network(), images, targets[:, :2], options=SHORT)
    with pytest.raises(TrainingDataError, match="not finite"):
        train(network(), images * torch.nan, targets, options=SHORT)


def test_a_loss_that_is_no_longer_finite_stops_training_with_a_named_error():
    images, targets = bars()
    with pytest.raises(TrainingDivergedError, match="gentler"):
        train(network(), images, targets * 1e30, options=SHORT)


@pytest.mark.parametrize(
    "wrong, words",
    [({"strength": "wild"}, "'wild'"), ({"label_smoothing": 1.0}, "got 1.0"), ({"epochs": 0}, "epochs=0")],
)
def test_options_that_make_no_sense_are_explained(wrong, words):
    with pytest.raises(ValueError, match=words):
        TrainingOptions(**wrong)


def test_labels_become_targets_and_those_outside_the_classes_are_named():
    assert one_hot(torch.tensor([2, 0]), classes=3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot(torch.tensor([], dtype=torch.long), classes=2).shape == (0, 2)
    for label in (3, -1):
        with pytest.raises(LabelOutsideClassesError, match=f"from 0 to 2, got {label}"):
            one_hot(torch.tensor([0, label]), classes=3)


def test_labels_that_all_say_the_same_are_refused():
    images, targets = bars()
    for rows in ([0], [0, 3, 6]):
        with pytest.raises(OneAnswerError, match=f"all {len(rows)} labels are the same"):
            train(network(), images[rows], targets[rows], options=SHORT)
    one_class = build_network("small_cnn", classes=1, preprocessing=Preprocessing.plain(channels=1), seed=0)
    with pytest.raises(OneAnswerError):
        train(one_class, images, torch.ones(12, 1), options=SHORT)


class Failing:
    """Images that can be read a few times only."""

    def __init__(self, images, reads):
        self.images, self.reads = images, reads

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.reads -= 1
        if self.reads < 0:
            raise OSError("the disk is gone")
        return self.images[rows]


def test_training_that_fails_leaves_the_weights_it_began_with():
    images, targets = bars()
    module = network()
    before = weights_hash(module)
    with pytest.raises(OSError, match="the disk is gone"):
        train(module, Failing(images, 8), targets, options=SHORT)
    assert weights_hash(module) == before
    assert not module.training

    def stop(share, words):
        raise RuntimeError(words)

    with pytest.raises(RuntimeError, match="training step 1"):
        train(module, images, targets, options=SHORT, progress=stop)
    assert weights_hash(module) == before
    with pytest.raises(TrainingDivergedError):
        train(module, images, targets * 1e30, options=SHORT)
    assert weights_hash(module) == before


def test_a_network_whose_outputs_are_wrong_is_named():
    images, targets = bars()
    module = network()
    module.head = torch.nn.Linear(256, 5)
    with pytest.raises(NetworkOutputError, match=r"outputs of shape \(12, 3\), the network gives \(12, 5\)"):
        outputs(module, images)
    module = network()
    module.head.bias.data[1] = torch.nan
    with pytest.raises(NetworkOutputError, match="not finite numbers for 12 of 12 images"):
        outputs(module, images)
    with pytest.raises(TrainingDivergedError):
        train(module, images, targets, options=SHORT)


def test_images_may_come_from_files_batch_by_batch(tmp_path):
    images, targets = bars()
    paths = []
    for row, image in enumerate(images):
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray((image[0].numpy() * 255).round().astype("uint8")).save(paths[-1])
    files = ImageFiles(paths, size=32, channels=1)
    hashes = []
    for source in (files, files[0:12]):
        module = network()
        train(module, source, targets, options=TrainingOptions(epochs=1, minimum_steps=3))
        hashes.append(weights_hash(module))
    assert hashes[0] == hashes[1]


def test_a_warm_start_is_between_the_trained_and_the_fresh_network():
    module, fresh = network(1), network(2)
    module.body[0].requires_grad_(False)
    old = {name: value.clone() for name, value in module.named_parameters()}
    shrink_and_perturb_(module, fresh, keep=0.25)
    new = dict(fresh.named_parameters())
    for name, value in module.named_parameters():
        expected = 0.25 * old[name] + 0.75 * new[name] if value.requires_grad else old[name]
        torch.testing.assert_close(value, expected)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        shrink_and_perturb_(module, fresh, keep=1.5)
    other = build_network("small_cnn", classes=4, preprocessing=Preprocessing.plain(channels=1), seed=0)
    with pytest.raises(ValueError, match=r"head\.weight does not fit"):
        shrink_and_perturb_(module, other)


def test_dropout_is_the_same_for_the_same_seed_and_leaves_the_global_random_state_alone():
    images, targets = bars()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    hashes = []
    for seed in (1, 1, 2):
        module = network()
        module.body.append(torch.nn.Dropout(0.5))
        train(
            module,
            images,
            targets,
            options=TrainingOptions(epochs=1, minimum_steps=2, batch_size=12, shift=0, seed=seed),
        )
        hashes.append(weights_hash(module))
    assert torch.equal(torch.rand(2), expected)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_deep_network_is_trained_at_a_gentler_rate_unless_only_its_head_is():
    preprocessing = Preprocessing.plain(channels=1)
    rates = []
    for freeze in ("none", "all_but_head"):
        module = build_network("mobilenet_v3_small", classes=3, preprocessing=preprocessing, seed=0, freeze=freeze)
        rates.append(_peak_rate(module, TrainingOptions()))
        assert _peak_rate(module, TrainingOptions(learning_rate=0.5)) == 0.5
    assert rates == pytest.approx([3e-4, 3e-3])
    assert _peak_rate(network(), TrainingOptions()) == 3e-3
