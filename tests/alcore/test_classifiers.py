"""torchvision's classifiers by name: their own outputs, a new head, weights from files, and errors that name things."""

from typing import get_type_hints

import pytest
import torch
from safetensors.torch import save_file

from alcore.datasets import Preprocessing
from alcore.network import (
    DownloadError,
    ImageSizeError,
    WeightsFileError,
    build_network,
    default_preprocessing,
    load_network,
    network_names,
    outputs,
    pretrained,
    save_network,
    weights_hash,
)
from alcore.network.classifiers import FAMILIES, body_of, head_of, new_classifier, torchvision_models

# The smallest network of each family, and images it takes.
SMALLEST = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 80,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vit_b_32": 32,
}


def pictures(count, *, size=32, channels=3, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def published(name, *, classes, size, seed=1):
    """torchvision's own network in eval mode, with norm statistics that are not those of the beginning."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_classifier(name, classes=classes, size=size).eval()
        for key, value in model.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(std=0.1)
    return model


def weights_file(folder, model, *, without=(), **changes):
    state = {key: value.contiguous() for key, value in model.state_dict().items() if key not in without}
    save_file({**state, **changes}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.mark.parametrize("name", SMALLEST)
def test_the_stages_give_what_torchvisions_own_forward_pass_gives(name):
    size = SMALLEST[name]
    model = published(name, classes=3, size=size)
    body, width = body_of(model)
    _, head = head_of(model)
    assert head.in_features == width
    images = pictures(2, size=size)
    with torch.no_grad():
        torch.testing.assert_close(head(body(images)), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "maxvit_t"])
def test_a_network_from_a_file_is_torchvisions_own_behind_its_normalisation(name, tmp_path):
    size = SMALLEST[name]
    model = published(name, classes=3, size=size)
    preprocessing = default_preprocessing(name, size=size)
    weights = weights_file(tmp_path, model)
    module = build_network(name, classes=3, preprocessing=preprocessing, seed=0, weights=weights)
    images = pictures(2, size=size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    with torch.no_grad():
        torch.testing.assert_close(module(images), model((images - mean) / std), rtol=1e-4, atol=1e-5)


def test_squeezenet_reads_the_same_features_with_a_linear_head(tmp_path):
    model = published("squeezenet1_1", classes=3, size=32)
    module = build_network(
        "squeezenet1_1",
        classes=3,
        preprocessing=Preprocessing.plain(),
        seed=0,
        weights=weights_file(tmp_path, model),
    )
    images = pictures(2)
    with torch.no_grad():
        expected = model.features(module.normalization(images)).mean((2, 3))
        torch.testing.assert_close(module.penultimate(images), expected)
        assert module(images).shape == (2, 3)


def test_every_classifier_of_torchvision_is_of_a_family_whose_stages_are_known():
    models = torchvision_models()
    builders = {name: models.get_model_builder(name) for name in network_names()[1:]}
    assert len(builders) > 60
    families = {name: get_type_hints(builder)["return"].__name__ for name, builder in builders.items()}
    assert set(families.values()) == set(FAMILIES)


def test_names_are_torchvisions_own_list_and_the_small_network():
    models = torchvision_models()
    assert set(network_names()) == {"small_cnn", *models.list_models(module=models)}


def test_image_sizes_and_normalisation_follow_the_trained_weights():
    assert default_preprocessing("small_cnn") == Preprocessing.plain()
    found = default_preprocessing("resnet18")
    assert (found.size, found.mean) == (224, (0.485, 0.456, 0.406))
    assert default_preprocessing("efficientnet_b1").size == 240
    assert default_preprocessing("inception_v3").mean == (0.5, 0.5, 0.5)
    one = default_preprocessing("resnet18", size=64, channels=1)
    assert (one.size, one.channels, len(one.mean)) == (64, 1, 1)


def test_one_channel_is_repeated_to_the_three_a_network_takes():
    grey = build_network("resnet18", classes=2, preprocessing=Preprocessing.plain(channels=1), seed=0)
    colour = build_network("resnet18", classes=2, preprocessing=Preprocessing.plain(channels=3), seed=0)
    images = pictures(2, channels=1)
    torch.testing.assert_close(outputs(grey, images), outputs(colour, images.expand(-1, 3, -1, -1)))


def test_trained_weights_bring_their_normalisation_and_random_ones_keep_the_given_one(tmp_path):
    path = weights_file(tmp_path, published("resnet18", classes=3, size=32))
    plain = Preprocessing.plain()
    trained = build_network("resnet18", classes=2, preprocessing=plain, seed=0, weights=path)
    assert trained.normalization.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert (trained.spec.weights, trained.spec.preprocessing.mean) == ("file", (0.485, 0.456, 0.406))
    random = build_network("resnet18", classes=2, preprocessing=plain, seed=0)
    assert random.normalization.mean.flatten().tolist() == [0.5, 0.5, 0.5]


def test_the_old_head_stays_only_where_its_shape_fits(tmp_path):
    model = published("resnet18", classes=3, size=32)
    path = weights_file(tmp_path, model)
    fits = build_network("resnet18", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights=path)
    assert torch.equal(fits.head.weight, model.fc.weight)
    new = build_network("resnet18", classes=5, preprocessing=Preprocessing.plain(), seed=0, weights=path)
    assert new.head.weight.shape == (5, 512)
    assert torch.equal(new.body.layer4_1.conv2.weight, model.layer4[1].conv2.weight)
    headless = weights_file(tmp_path, model, without=("fc.weight", "fc.bias"))
    build_network("resnet18", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights=headless)


def test_the_same_seed_builds_the_same_network_and_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    names = [
        build_network("mobilenet_v3_small", classes=2, preprocessing=Preprocessing.plain(), seed=seed)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.rand(3), expected)
    first, second, third = map(weights_hash, names)
    assert first == second != third


def test_a_saved_classifier_comes_back_without_its_weights_file(tmp_path):
    path = weights_file(tmp_path, published("mobilenet_v3_small", classes=3, size=32))
    module = build_network(
        "mobilenet_v3_small",
        classes=2,
        preprocessing=Preprocessing.plain(),
        seed=0,
        weights=path,
        freeze="all_but_last_block",
    )
    save_network(module, tmp_path / "network.safetensors", header={})
    path.unlink()
    loaded, _ = load_network(tmp_path / "network.safetensors")
    assert loaded.spec == module.spec
    assert weights_hash(loaded) == weights_hash(module)
    assert torch.equal(outputs(loaded, pictures(2)), outputs(module, pictures(2)))
    frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, value in loaded.named_parameters() if not value.requires_grad}


def test_what_a_weights_file_lacks_or_has_too_much_is_named(tmp_path):
    model = published("resnet18", classes=3, size=32)

    def build(path):
        return build_network("resnet18", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights=path)

    with pytest.raises(WeightsFileError, match=r"does not fit resnet18\. missing: conv1\.weight"):
        build(weights_file(tmp_path, model, without=("conv1.weight",)))
    with pytest.raises(WeightsFileError, match="unexpected: extra"):
        build(weights_file(tmp_path, model, extra=torch.zeros(1)))
    wrong = {"conv1.weight": torch.zeros(64, 1, 7, 7)}
    with pytest.raises(WeightsFileError, match=r"conv1\.weight is \(64, 1, 7, 7\), should be \(64, 3, 7, 7\)"):
        build(weights_file(tmp_path, model, **wrong))
    with pytest.raises(WeightsFileError, match=r"bn1\.bias has values that are not finite"):
        build(weights_file(tmp_path, model, **{"bn1.bias": torch.full((64,), torch.nan)}))
    other = weights_file(tmp_path, published("squeezenet1_1", classes=3, size=32))
    with pytest.raises(WeightsFileError, match="and 95 more; unexpected: classifier"):
        build(other)


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    path = tmp_path / "resnet18.pth"
    torch.save({"fc.weight": Trap()}, path)
    with pytest.raises(WeightsFileError, match=r"resnet18\.pth is not a readable safetensors file.*never opened"):
        build_network("resnet18", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights=path)


def test_weights_that_are_not_there_are_explained(tmp_path):
    for weights in (tmp_path / "none.safetensors", "imagenet"):
        with pytest.raises(WeightsFileError, match="or a safetensors file; there is no file"):
            build_network("resnet18", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights=weights)
    with pytest.raises(WeightsFileError, match="no trained weights of small_cnn"):
        build_network("small_cnn", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights="DEFAULT")


def test_a_download_asks_torch_for_weights_only_and_says_what_to_do_when_it_fails(monkeypatch):
    asked = []

    def refuse(url, **options):
        asked.append(options)
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(DownloadError, match=r"resnet18 could not be downloaded \(no route to host\).*safetensors file"):
        build_network("resnet18", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights="DEFAULT")
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]


def test_downloaded_weights_are_used_as_a_file_would_be(monkeypatch):
    model = published("densenet121", classes=1000, size=32)
    # The published file has the names of old: norm.1 for norm1, and no counts of batches.
    old = {
        key.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in key else key: value
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **options: old)
    module = build_network("densenet121", classes=3, preprocessing=Preprocessing.plain(), seed=0, weights="DEFAULT")
    assert module.spec.weights == "DEFAULT"
    images = pictures(2)
    with torch.no_grad():
        expected = torch.relu(model.features(module.normalization(images))).mean((2, 3))
        torch.testing.assert_close(module.penultimate(images), expected)


def test_auxiliary_heads_of_published_weights_are_left_out():
    keys = ["aux1.conv.weight", "AuxLogits.fc.bias", "aux2.fc1.weight"]
    assert all(pretrained.AUXILIARY.match(key) for key in keys)
    assert not pretrained.AUXILIARY.match("inception4a.aux1.weight")


def test_images_of_a_size_that_a_network_cannot_take_are_refused():
    with pytest.raises(ImageSizeError, match="alexnet cannot take images of 32 pixels"):
        build_network("alexnet", classes=3, preprocessing=Preprocessing.plain(), seed=0)
    with pytest.raises(ImageSizeError, match="vit_b_32 cannot be built for images of 40 pixels"):
        build_network("vit_b_32", classes=3, preprocessing=Preprocessing.plain(size=40), seed=0)
