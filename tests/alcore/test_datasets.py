"""Image files become the same numbers every time, and bad files are named."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from alcore.datasets import (
    ImageFileError,
    ImageFiles,
    Preprocessing,
    PreprocessingError,
    batch_rows,
    iterate_images,
    load_images,
    preprocessing_hash,
)

RED_GREEN = np.zeros((4, 6, 3), dtype=np.uint8)
RED_GREEN[:, :3, 0] = 255
RED_GREEN[:, 3:, 1] = 255


def load_one(path, *, size=6, channels=3):
    return load_images([path], size=size, channels=channels)[0]


def saved(tmp_path, image, name="image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_pixels_are_float32_between_zero_and_one_and_keep_their_values_at_the_same_size(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    loaded = load_one(saved(tmp_path, Image.fromarray(pixels)), size=5)
    assert loaded.dtype == torch.float32
    assert loaded.shape == (3, 5, 5)
    torch.testing.assert_close(loaded, torch.from_numpy(pixels.transpose(2, 0, 1) / 255).float())


def test_a_palette_image_is_loaded_like_the_true_colours_it_stands_for(tmp_path):
    image = Image.fromarray(RED_GREEN)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    assert palette.mode == "P"
    direct = load_one(saved(tmp_path, image, "direct.png"))
    torch.testing.assert_close(load_one(saved(tmp_path, palette, "palette.png")), direct)


def test_transparent_pixels_become_white_whatever_colour_they_hide(tmp_path):
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:2, :, 3] = 255
    loaded = load_one(saved(tmp_path, Image.fromarray(pixels, "RGBA")), size=4)
    assert loaded[:, :2].max() == 0
    assert loaded[:, 2:].min() == 1


def test_a_palette_image_with_a_transparent_colour_is_put_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    image.putpalette([0, 0, 0, 10, 10, 10])
    loaded = load_one(saved(tmp_path, image, transparency=0), size=2)
    assert loaded[0, 0, 0] == 1
    assert loaded[0, 0, 1] == pytest.approx(10 / 255)


def test_sixteen_bit_pixels_keep_their_place_in_the_full_range(tmp_path):
    values = np.array([[0, 32768], [65535, 6554]], dtype=np.uint16)
    loaded = load_one(saved(tmp_path, Image.fromarray(values)), size=2, channels=1)
    torch.testing.assert_close(loaded[0], torch.from_numpy(values / 65535).float())


def test_a_cmyk_image_is_loaded_in_its_colours(tmp_path):
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    loaded = load_one(saved(tmp_path, cyan, "cyan.tif"), size=4)
    assert loaded[0].max() < 0.1
    assert loaded[1:].min() > 0.9


def test_an_image_with_an_exif_rotation_is_loaded_upright(tmp_path):
    upright = Image.fromarray(RED_GREEN).resize((12, 8), Image.Resampling.NEAREST)
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    rotated = load_one(saved(tmp_path, lying, "rotated.png", exif=exif), size=8)
    plain = load_one(saved(tmp_path, upright, "upright.png"), size=8)
    assert plain[0, :, 0].min() > 0.9
    torch.testing.assert_close(rotated, plain)


def test_one_channel_is_the_luminance_and_three_channels_of_a_grey_image_are_equal(tmp_path):
    colour = load_one(saved(tmp_path, Image.new("RGB", (4, 4), (0, 255, 0)), "green.png"), channels=1)
    torch.testing.assert_close(colour, torch.full((1, 6, 6), 150 / 255), atol=2 / 255, rtol=0)
    grey = load_one(saved(tmp_path, Image.linear_gradient("L"), "grey.png"))
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    assert grey.max() > grey.min()


def test_a_wide_image_is_squeezed_so_that_both_ends_are_kept(tmp_path):
    wide = Image.fromarray(RED_GREEN).resize((60, 4), Image.Resampling.NEAREST)
    loaded = load_one(saved(tmp_path, wide), size=8)
    assert loaded[0, :, 0].min() > 0.9
    assert loaded[1, :, -1].min() > 0.9


def test_loading_twice_gives_equal_tensors_and_batches_join_to_the_whole(tmp_path):
    generator = np.random.default_rng(1)
    pixels = [Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)) for _ in range(5)]
    paths = [saved(tmp_path, image, f"{row}.png") for row, image in enumerate(pixels)]
    seen = []
    batches = iterate_images(
        paths, size=8, channels=3, batch_size=2, progress=lambda share, message: seen.append((share, message))
    )
    whole = load_images(paths, size=8, channels=3)
    parts = list(batches)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(load_images(paths, size=8, channels=3), whole)
    assert seen[-1] == (1.0, "read 5 of 5 images")


@pytest.mark.parametrize(
    "content, words",
    [(b"this is text", "not an image"), (b"", "not an image"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "image")],
)
def test_a_file_that_is_not_an_image_is_named_in_the_error(tmp_path, content, words):
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=rf"notes\.png.*{words}"):
        load_one(path)


def test_a_truncated_image_and_a_missing_one_are_named(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(pixels), "cut.png")
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageFileError, match=r"cut\.png: damaged"):
        load_one(path)
    with pytest.raises(ImageFileError, match=r"gone\.png: no such file"):
        load_one(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused_by_name(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (40, 40)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageFileError, match=r"bomb\.png: too many pixels"):
        load_one(path)


def test_an_impossible_preprocessing_is_explained():
    with pytest.raises(PreprocessingError, match="got 2"):
        Preprocessing.plain(channels=2)
    with pytest.raises(PreprocessingError, match="at least 1 pixel"):
        Preprocessing.plain(size=0)
    with pytest.raises(PreprocessingError, match="as many means"):
        Preprocessing(channels=1)
    with pytest.raises(PreprocessingError, match="above 0"):
        Preprocessing(channels=1, mean=(0.0,), std=(0.0,))


def test_the_preprocessing_hash_tells_sizes_and_channels_apart_and_is_the_same_in_another_process():
    hashes = {preprocessing_hash(size, channels) for size in (28, 32) for channels in (1, 3)}
    assert len(hashes) == 4
    code = "from alcore.datasets import preprocessing_hash; print(preprocessing_hash(32, 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == preprocessing_hash(32, 3)


def test_image_files_are_read_by_slice_or_index_and_never_all_at_once(tmp_path):
    paths = [
        saved(tmp_path, Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)), name=f"{value}.png")
        for value in (0, 51, 102, 255)
    ]
    files = ImageFiles(paths, size=2, channels=3)
    whole = load_images(paths, size=2, channels=3)
    assert (len(files), files.bytes, files.device) == (4, 4 * 3 * 4 * 4, torch.device("cpu"))
    assert torch.equal(files[1:3], whole[1:3])
    assert torch.equal(files[torch.tensor([3, 0])], whole[[3, 0]])
    assert [rows.indices(4)[:2] for rows in batch_rows(files, 3)] == [(0, 3), (3, 4)]
    paths[2].unlink()
    assert torch.equal(files[:2], whole[:2])
    with pytest.raises(ImageFileError, match=r"102\.png: no such file"):
        files[2:3]


@pytest.mark.parametrize(
    "shape, expected", [((500, 3, 32, 32), 256), ((500, 3, 224, 224), 27), ((3, 3, 2500, 2500), 1)]
)
def test_batches_are_smaller_where_images_are_larger(shape, expected):
    images = torch.zeros(1).expand(shape)
    rows = list(batch_rows(images))
    assert rows[0] == slice(0, expected)
    assert sum(part.stop - part.start for part in rows) == len(images)
    assert list(batch_rows(images[:0])) == []
