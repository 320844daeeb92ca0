"""The loss-prediction module reads any network at four depths, learns beside it, and finds the images it gets wrong."""

import pytest
import torch

from alcore.acquisition.ll4al import loss_ranking
from alcore.datasets import Preprocessing
from alcore.network import LossPrediction, build_network, freeze_body_, outputs, predicted_losses, split_network
from alcore.network.loss_prediction import ATTACHED_SHARE, pooled, tap_places
from alcore.training import TrainingDivergedError, TrainingOptions, train


def network(name="small_cnn", size=16, classes=3):
    return build_network(name, classes=classes, preprocessing=Preprocessing.plain(size=size), seed=0)


def images_of(count, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "name, size, depths",
    [("small_cnn", 16, 3), ("resnet18", 32, 4), ("vgg11", 32, 4), ("vit_b_16", 32, 4), ("swin_t", 32, 4)],
)
def test_every_kind_of_network_is_read_at_up_to_four_depths_and_its_outputs_stay(name, size, depths):
    module, images = network(name, size), images_of(2, size)
    companion = LossPrediction(module, images[:1], seed=0)
    assert len(companion.readers) == depths
    with torch.no_grad():
        found, tapped = companion.run(module, images)
    assert torch.allclose(found, outputs(module, images), atol=1e-5)
    assert all(part.shape[0] == 2 and part.ndim == 2 for part in tapped)
    assert tap_places(module)[-1] == len(module.body) - 1
    assert predicted_losses(companion, module, images).shape == (2,)


def test_pictures_and_tokens_are_averaged_over_their_places():
    channels_first = torch.arange(24.0).reshape(1, 6, 2, 2)
    assert torch.equal(pooled(channels_first), channels_first.mean((2, 3)))
    channels_last = torch.arange(24.0).reshape(1, 2, 2, 6)
    assert torch.equal(pooled(channels_last), channels_last.mean((1, 2)))
    assert torch.equal(pooled(torch.arange(6.0).reshape(1, 3, 2)), torch.tensor([[2.0, 3.0]]))
    assert torch.equal(pooled(torch.ones(2, 5)), torch.ones(2, 5))


def test_behind_a_frozen_prefix_the_activations_themselves_are_read():
    prefix, rest = split_network(freeze_body_(network()))
    with torch.no_grad():
        activations = prefix(images_of(4))
    companion = LossPrediction(rest, activations[:1], seed=0)
    with torch.no_grad():
        _, tapped = companion.run(rest, activations)
    assert len(tapped) == 1
    assert torch.equal(tapped[0], activations)


def test_losses_are_the_networks_own_and_the_ranking_of_them_and_late_gradients_stay_out_of_the_network():
    module, images = network(), images_of(6)
    targets = torch.eye(3)[torch.arange(6) % 3]
    companion = LossPrediction(module, images[:1], seed=0)
    own, extra = companion.losses(module, images, targets, share=0.0)
    each = (outputs(module, images) - targets).square().sum(1)
    assert float(own.detach()) == pytest.approx(float(each.detach().mean()), rel=1e-5)
    expected = loss_ranking(predicted_losses(companion, module, images), each.detach())
    assert float(extra.detach()) == pytest.approx(float(expected), rel=1e-4)
    assert torch.autograd.grad(extra, module.body[0].weight)[0].abs().sum() > 0
    _, late = companion.losses(module, images, targets, share=ATTACHED_SHARE)
    assert torch.autograd.grad(late, module.body[0].weight, allow_unused=True)[0] is None
    assert companion.last.weight.requires_grad


def test_the_same_seed_gives_the_same_module_and_leaves_the_random_state_alone():
    module, images = network(), images_of(1)
    state = torch.get_rng_state()
    first, again, other = (LossPrediction(module, images, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.last.weight, again.last.weight)
    assert not torch.equal(first.last.weight, other.last.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_trained_beside_a_network_it_expects_large_losses_where_labels_are_noise():
    generator = torch.Generator().manual_seed(0)
    images = 0.3 * torch.rand(120, 3, 16, 16, generator=generator)
    hard = torch.arange(120) % 2 == 1
    images[hard] += 0.6  # bright images have labels by chance, dark ones always the first class
    labels = torch.where(hard, torch.randint(3, (120,), generator=generator), 0)
    module = network()
    companion = LossPrediction(module, images[:1], seed=0)
    options = TrainingOptions(epochs=1, minimum_steps=120, shift=0, stop_below=0, seed=0)
    before = module.head.weight.detach().clone()
    report = train(module, images, torch.eye(3)[labels], options=options, companion=companion)
    found = predicted_losses(companion, module, images)
    assert found[hard].min() > found[~hard].max()
    assert not torch.equal(module.head.weight, before)
    assert report.losses[-1] < 1  # the network's own loss, without the ranking's
    assert not module.training


def test_training_with_a_companion_that_diverges_leaves_the_networks_weights():
    class Broken:
        def parameters(self):
            return iter(())

        def losses(self, module, images, targets, *, share):
            return (module(images) - targets).square().sum(1).mean(), torch.tensor(float("nan"))

    module = network()
    before = module.head.weight.detach().clone()
    options = TrainingOptions(epochs=1, minimum_steps=5)
    with pytest.raises(TrainingDivergedError):
        train(module, images_of(6), torch.eye(3)[torch.arange(6) % 3], options=options, companion=Broken())
    assert torch.equal(module.head.weight, before)
