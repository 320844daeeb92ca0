"""Files are whole or not there, and say what is wrong with them."""

import json
import os

import pytest
import torch
from safetensors.torch import save

from alcore import store


def tensors():
    return {"a": torch.arange(6, dtype=torch.float64).reshape(2, 3), "rows": torch.tensor([3, 1])}


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "folder" / "x.safetensors"
    header = {"kind": "test", "ids": [3, 1, 2], "nested": {"ä": None}}
    store.write(path, tensors(), header)
    read, read_header = store.read(path)
    assert read_header == header
    assert set(read) == {"a", "rows"}
    for name, value in tensors().items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


def test_a_view_with_strides_is_written_as_what_it_shows(tmp_path):
    wide = torch.arange(12.0).reshape(3, 4)
    store.write(tmp_path / "x", {"t": wide.t(), "column": wide[:, 1]}, {})
    read, _ = store.read(tmp_path / "x")
    assert torch.equal(read["t"], wide.t())
    assert torch.equal(read["column"], wide[:, 1])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(store.StoreMissingError, match=r"gone\.bin"):
        store.read(tmp_path / "gone.bin")


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
def test_a_truncated_file_is_corrupt(tmp_path, keep):
    path = tmp_path / "x"
    store.write(path, tensors(), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(store.StoreCorruptError, match="x"):
        store.read(path)


def test_another_kind_of_file_is_corrupt(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(save({"a": torch.zeros(2)}))
    with pytest.raises(store.StoreCorruptError):
        store.read(path)
    path.write_text("hello, this is no tensor file at all")
    with pytest.raises(store.StoreCorruptError):
        store.read(path)


def test_another_version_is_named_with_both_versions(tmp_path):
    path = tmp_path / "x"
    text = json.dumps({"version": 99, "header": {}})
    path.write_bytes(save({"a": torch.zeros(2)}, metadata={store.HEADER_KEY: text}))
    with pytest.raises(store.StoreVersionError, match=r"99.*reads 1"):
        store.read(path)


@pytest.mark.parametrize("header", [{"x": object()}, {"x": float("nan")}])
def test_a_header_that_is_not_json_is_refused_and_nothing_is_written(tmp_path, header):
    with pytest.raises(store.StoreError, match="not JSON"):
        store.write(tmp_path / "x", tensors(), header)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "x"
    store.write(path, tensors(), {"version": "old"})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.StoreError, match="No space left"):
        store.write(path, {"a": torch.zeros(1)}, {"version": "new"})
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert store.read(path)[1] == {"version": "old"}


def test_a_folder_in_the_way_is_explained(tmp_path):
    with pytest.raises(store.StoreError, match="could not be"):
        store.write(tmp_path, tensors(), {})
    with pytest.raises(store.StoreError, match="could not be read"):
        store.read(tmp_path)


def test_rows_are_written_batch_by_batch_and_read_by_slice_or_index(tmp_path):
    path = tmp_path / "rows.safetensors"
    rows = torch.arange(24.0).view(6, 2, 2)
    store.write_rows(path, iter([rows[:4], rows[4:]]), shape=(6, 2, 2), dtype=torch.float16, header={"a": 1})
    stored, header = store.read_rows(path)
    assert header == {"a": 1}
    assert (len(stored), stored.shape, stored.device) == (6, (6, 2, 2), torch.device("cpu"))
    assert torch.equal(stored[1:5], rows[1:5])
    assert torch.equal(stored[:2], rows[:2])
    assert torch.equal(stored[torch.tensor([5, 0])], rows[[5, 0]])
    assert stored[torch.tensor([], dtype=torch.long)].shape == (0, 2, 2)
    assert stored[0:6].dtype == torch.float32
    tensors, _ = store.read(path)
    assert torch.equal(tensors["rows"].float(), rows)


def test_rows_that_do_not_add_up_or_cannot_be_made_leave_the_old_file(tmp_path):
    path = tmp_path / "rows.safetensors"
    store.write_rows(path, [torch.zeros(2, 3)], shape=(2, 3), dtype=torch.float32, header={})
    with pytest.raises(store.StoreError, match=r"rows of shape \(3, 3\), 24 bytes came"):
        store.write_rows(path, [torch.zeros(2, 3)], shape=(3, 3), dtype=torch.float32, header={})

    def failing():
        yield torch.zeros(1, 3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        store.write_rows(path, failing(), shape=(2, 3), dtype=torch.float32, header={})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    stored = store.read_rows(path)[0]
    assert torch.equal(stored[0:2], torch.zeros(2, 3))
    path.unlink()
    with pytest.raises(store.StoreError, match="could not be read"):
        stored[0:1]
    store.write(path, {"other": torch.zeros(2)}, {})
    with pytest.raises(store.StoreCorruptError, match="does not hold rows"):
        store.read_rows(path)


def test_numbers_that_were_changed_on_the_disk_are_noticed(tmp_path):
    path = tmp_path / "x"
    store.write(path, {"a": torch.arange(100.0)}, {})
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(store.StoreCorruptError, match="checksum of a"):
        store.read(path)


def test_what_was_read_stays_whatever_happens_to_the_file(tmp_path):
    path = tmp_path / "x"
    store.write(path, {"a": torch.arange(100_000.0)}, {})
    read, _ = store.read(path)
    with path.open("r+b") as file:
        file.truncate(100)
    assert torch.equal(read["a"], torch.arange(100_000.0))


def test_a_file_of_before_there_were_checksums_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(save({"a": torch.ones(2)}, metadata={"foresight": '{"version": 1, "header": {}}'}))
    assert torch.equal(store.read(path)[0]["a"], torch.ones(2))


def test_empty_and_single_numbers_have_checksums_too(tmp_path):
    store.write(tmp_path / "x", {"none": torch.zeros(0, 3), "one": torch.tensor(3.0)}, {})
    read, _ = store.read(tmp_path / "x")
    assert read["none"].shape == (0, 3)
    assert float(read["one"]) == 3.0
