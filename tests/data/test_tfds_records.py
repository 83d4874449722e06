"""Image files through tensorflow-datasets, without TensorFlow, to arrays."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_data import SIZE, cache_folder, shelved_market, write, write_manifest, write_truncated

from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.data.resizing import resize_to_bytes
from svdnet_jax.data.tfds_records import Reid, pack
from svdnet_jax.errors import DataError

market = pytest.fixture(shelved_market)
cache = pytest.fixture(cache_folder)


def test_real_folders_are_read(market, cache):
    dataset = load_dataset(market, cache, SIZE)
    assert dataset.name == "Market-1501-v15.09.15"
    assert dataset.train.pids.tolist() == [2, 2, 7, 7]
    assert dataset.train.cameras.tolist() == [1, 2, 1, 2]
    assert dataset.gallery.pids.tolist() == [-1, 0, 1]
    assert dataset.gallery.names[0] == "-1_c3s2_000010_02.jpg.jpg"
    assert dataset.train.images.shape == (4, 16, 8, 3)
    assert dataset.train.images.dtype == np.uint8
    # Each row is the image of its own name: colours were made from pid and camera; JPEG shifts them a little.
    for image, pid, camera in zip(dataset.train.images, dataset.train.pids, dataset.train.cameras, strict=True):
        np.testing.assert_allclose(image[8, 4], (pid * 20, camera * 60, 0), atol=4)


def test_images_are_taken_as_they_are(market, cache):
    noise = np.random.default_rng(0).integers(0, 255, (16, 8, 3), np.uint8)
    path = market / "query" / "0001_c1s1_000001_00.jpg"
    Image.fromarray(noise).save(path, "JPEG", quality=70)
    loaded = load_dataset(market, cache, SIZE).query.images[0]
    np.testing.assert_array_equal(loaded, np.asarray(Image.open(io.BytesIO(path.read_bytes()))))


def test_records_hold_the_bytes_of_the_files(market, cache):
    listing = find_layout(market, cache)
    packed = pack(listing, cache)
    assert (packed.name, packed.builder_config.name) == ("reid", "market1501")
    import tensorflow_datasets as tfds

    source = packed.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    paths = {crop.name: crop.path for crop in listing.splits["train"]}
    found = {record["name"].decode(): record for record in source}
    assert found.keys() == paths.keys()
    for name, record in found.items():
        assert record["image"] == paths[name].read_bytes()
        assert (record["pid"], record["camera"]) == (int(name[:4]), int(name[6]))


def test_packed_records_are_read_by_name_alone(market, cache):
    pack(find_layout(market, cache), cache)
    reader = Reid(config="market1501", data_dir=str(cache), file_format="array_record")
    assert reader.info.splits["gallery"].num_examples == 3


def test_png_and_gray_images_become_rgb(tmp_path, cache):
    text = "path,identity,split\na.png,1,train\nb.png,2,train\nc.png,3,query\nd.png,3,gallery\n"
    root = write_manifest(tmp_path / "mine", text, [f"{name}.png" for name in "abcd"])
    Image.new("L", (8, 16), 77).save(root / "a.png")
    Image.new("RGBA", (8, 16), (1, 2, 3, 255)).save(root / "b.png")
    images = load_dataset(root, cache, SIZE).train.images
    np.testing.assert_array_equal(images[:, 0, 0], [[77, 77, 77], [1, 2, 3]])


def test_images_of_several_sizes_are_brought_to_one(market, cache):
    noise = np.random.default_rng(0).integers(0, 255, (90, 40, 3), np.uint8)
    path = market / "query" / "0001_c3s1_000001_00.jpg"
    Image.fromarray(noise).save(path, quality=95)
    dataset = load_dataset(market, cache, (20, 10))
    assert dataset.query.images.shape == (2, 20, 10, 3)
    assert dataset.train.images.shape == (4, 20, 10, 3)
    np.testing.assert_array_equal(dataset.query.images[1], resize_to_bytes(np.asarray(Image.open(path)), (20, 10)))


def test_undecodable_images_are_named(market, cache):
    path = market / "query" / "0001_c1s1_000001_00.jpg"
    path.write_bytes(b"\xff\xd8 this is no JPEG")
    with pytest.raises(DataError, match="0001_c1s1_000001_00.jpg: cannot be decoded .it is no image"):
        load_dataset(market, cache, SIZE)
    write_truncated(path)
    with pytest.raises(
        DataError, match="0001_c1s1_000001_00.jpg: cannot be decoded .image file is truncated.*; replace the file"
    ):
        load_dataset(market, cache, SIZE)
    assert [path.name.split("-")[0] for path in cache.iterdir()] == ["records"]


def test_a_split_may_be_empty(tmp_path, cache):
    text = "path,identity,split\na.jpg,1,train\nb.jpg,2,train\n"
    dataset = load_dataset(write_manifest(tmp_path / "mine", text), cache, SIZE)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (2, 0, 0)


def test_packing_prints_nothing_and_imports_no_tensorflow(market, cache):
    program = (
        "import sys; from pathlib import Path; from svdnet_jax.data.reading import load_dataset\n"
        f"load_dataset(Path({str(market)!r}), Path({str(cache)!r}), (16, 8))\n"
        "assert 'tensorflow' not in sys.modules and 'tensorflow_datasets' in sys.modules"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout == ""


def test_another_process_may_be_quicker(market, cache, monkeypatch):
    listing = find_layout(market, cache)
    slow = Reid.download_and_prepare

    def overtaken(self, *args, **kwargs):
        monkeypatch.setattr(Reid, "download_and_prepare", slow)
        pack(listing, cache)
        raise FileExistsError("renaming the records into their place")

    monkeypatch.setattr(Reid, "download_and_prepare", overtaken)
    assert pack(listing, cache).info.splits["train"].num_examples == 4


def test_a_changed_file_is_packed_anew(market, cache):
    load_dataset(market, cache, SIZE)
    write(market / "query" / "0001_c1s1_000001_00.jpg", (250, 250, 250))
    assert load_dataset(market, cache, SIZE).query.images.min() > 240
