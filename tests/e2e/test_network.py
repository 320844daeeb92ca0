"""Colour photos and a torchvision network, from the form to ranked cards: ResNet-18 from a safetensors file, frozen but
for its last block."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from playwright.sync_api import expect
from safetensors.torch import save_file

from alcore.network.classifiers import torchvision_models

pytestmark = [pytest.mark.e2e, pytest.mark.once]

CLASSES = ("disc", "square", "cross")
SIDE = 96
COUNT = 48


def photo(shape, seed):
    """A drawn shape on a textured background, each with a place, size and colours of its own."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    waves = np.sin(chance.uniform(3, 9) * x + chance.uniform(3, 9) * y + chance.uniform(0, 6))
    background = chance.uniform(40, 200, 3) + 25 * waves[..., None] + chance.normal(0, 12, (SIDE, SIDE, 3))
    across, down = x - chance.uniform(-0.3, 0.3), y - chance.uniform(-0.3, 0.3)
    size = chance.uniform(0.35, 0.55)
    inside = {
        "disc": across**2 + down**2 < size**2,
        "square": np.maximum(abs(across), abs(down)) < size,
        "cross": (np.minimum(abs(across), abs(down)) < size / 3) & (np.maximum(abs(across), abs(down)) < size),
    }[shape]
    pixels = np.where(inside[..., None], chance.uniform(0, 255, 3), background).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(COUNT):
            shape = CLASSES[number % 3]
            archive.writestr(f"{shape}-{number:02d}.jpg", photo(shape, number))
    return tmp_path / "photos.zip"


@pytest.fixture
def weights(tmp_path):
    """A ResNet-18 as somebody's trained one would come, its last layer for other classes; nobody has trained this."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision_models().resnet18(weights=None)
    save_file(model.state_dict(), tmp_path / "resnet18.safetensors")
    return tmp_path / "resnet18.safetensors"


def fill_in(page, weights, *, name="Shapes", network="resnet18"):
    page.goto("/projects/new/")
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Classes").fill("\n".join(CLASSES))
    page.get_by_label("Network", exact=True).select_option(network)
    page.get_by_label("Its weights").select_option("file")
    page.get_by_label("The weights' file").set_input_files(weights)
    page.get_by_label("Layers that stay as they are").select_option("all_but_last_block")
    page.get_by_label("Image size in pixels").fill("64")
    page.get_by_label("Audit images").fill("0")
    page.get_by_role("button", name="Make the project").click()


def make_project(page, weights, photos):
    fill_in(page, weights)
    page.wait_for_url("**/projects/shapes/images/")
    page.locator("input[type=file]").set_input_files(photos)
    page.get_by_role("button", name="Upload").click()


def state_of(product):
    """Numbers of the shapes' networks that are or were live, and what any job failed with."""
    live = product.rows(
        "select v.number from annotator_linearization l join annotator_networkversion v on v.id = l.network_version_id "
        "join annotator_project p on p.id = l.project_id where p.slug = 'shapes' and l.live_at is not null"
    )
    errors = product.rows(
        "select j.error from annotator_job j join annotator_project p on p.id = j.project_id "
        "where p.slug = 'shapes' and j.error <> ''"
    )
    assert errors == []
    return {number for (number,) in live}


def checked(product):
    """What the check after the first training found."""
    metrics = product.one(
        "select v.metrics from annotator_networkversion v join annotator_project p on p.id = v.project_id "
        "where p.slug = 'shapes' and v.number = 1"
    )
    return json.loads(metrics).get("fidelity")


def label(page, product):
    """Press the key of the shape that the file's name tells."""
    card = page.locator("#card")
    query = card.get_attribute("data-query")
    image = int(page.locator("#picture").get_attribute("src").split("/")[2])
    name = product.one("select source_name from annotator_image where id = ?", image)
    page.keyboard.press(str(CLASSES.index(name.rpartition("/")[2].split("-")[0]) + 1))
    expect(card).not_to_have_attribute("data-query", query)


def test_a_frozen_resnet_from_a_file_learns_from_colour_photos_and_ranks_the_cards(product, sign_in, weights, photos):
    page = sign_in("admin")
    make_project(page, weights, photos)
    product.wait_for(lambda: 0 in state_of(product), what="ResNet-18 linearised over the photos")
    page.goto("/projects/shapes/annotate/")
    page.locator("#card-title").focus()
    for _ in range(20):
        label(page, product)
    product.wait_for(lambda: 1 in state_of(product), what="the first trained ResNet-18 going live")
    for _ in range(4):
        label(page, product)
        page.wait_for_timeout(300)
    ranked = product.rows(
        "select q.kind, q.strategy, q.score from annotator_query q join annotator_project p on p.id = q.project_id "
        "where p.slug = 'shapes' order by q.leased_at desc limit 3"
    )
    assert {(kind, strategy) for kind, strategy, _ in ranked} == {("ranked", "lookahead")}
    assert all(score > 0 for _, _, score in ranked)
    expect(page.locator("#card")).to_contain_text("Look-ahead")
    product.wait_for(lambda: checked(product), what="the check of the look-ahead against retraining")
    page.goto("/projects/shapes/progress/")
    # On a machine with little time, or none, to retrain a ResNet the badge says so.
    expect(page.locator(".badge", has_text="real retraining")).to_contain_text(
        re.compile(r"rank correlation|Too few candidates|there (is|are|was)")
    )
    page.goto("/projects/shapes/settings/")
    expect(page.get_by_text("Network: ResNet-18")).to_contain_text("All but the last block")


def test_a_wrong_weights_file_is_named_at_the_top_and_beside_its_field_and_the_rest_of_the_form_stays(
    sign_in, weights, tmp_path
):
    page = sign_in("admin")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:100_000])
    pickle = tmp_path / "resnet18.pth"
    torch.save({"fc.weight": torch.zeros(2)}, pickle)
    for file, words in ((cut, "not complete"), (pickle, "never opened, since it can run code")):
        fill_in(page, file, name="Wrong file")
        expect(page.locator("#id_weights_upload_error")).to_contain_text(words)
        page.get_by_role("alert").get_by_role("link", name="The weights' file").click()
        expect(page.get_by_label("The weights' file")).to_be_in_viewport()
        expect(page.get_by_role("textbox", name="Name")).to_have_value("Wrong file")
        expect(page.get_by_role("textbox", name="Classes")).to_have_value("\n".join(CLASSES))
        expect(page.get_by_label("Network", exact=True)).to_have_value("resnet18")
        expect(page.get_by_label("Its weights")).to_have_value("file")
        expect(page.get_by_label("Layers that stay as they are")).to_have_value("all_but_last_block")
        expect(page.get_by_label("Image size in pixels")).to_have_value("64")
        expect(page.get_by_label("Audit images")).to_have_value("0")


def test_after_weights_of_another_network_the_admin_chooses_another_one_and_goes_on(product, sign_in, weights, photos):
    page = sign_in("admin")
    fill_in(page, weights, name="Mistaken", network="mobilenet_v3_small")
    page.wait_for_url("**/projects/mistaken/images/")
    page.locator("input[type=file]").set_input_files(photos)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/images/import/**")
    page.goto("/projects/mistaken/")
    expect(page.get_by_text("does not fit mobilenet_v3_small")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Prepare again")).to_be_visible()
    page.get_by_role("link", name="Choose another network").click()
    page.get_by_label("Network", exact=True).select_option("small_cnn")
    page.get_by_label("Its weights").select_option("none")
    page.get_by_label("Layers that stay as they are").select_option("none")
    page.get_by_label("Image size in pixels").fill("")
    page.get_by_role("button", name="Prepare with this network").click()
    page.wait_for_url("**/projects/mistaken/")
    expect(page.locator("#overview")).to_contain_text("untrained", timeout=60_000)
    expect(page.get_by_text("images are ready")).to_be_visible()
