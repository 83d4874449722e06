"""A folder an identity, as ImageFolder and layumi's baseline have them, and manifests written of any layout."""

import csv
import re

import pytest
from small_data import SIZE, write, write_market

from svdnet_jax.cli.check_data import main
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.holdout import hold_out
from svdnet_jax.data.inspect import inspect
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import ConfigError, DataError


def find(root, layout="auto", **how):
    return find_layout(root, root / "no cache is needed", layout, **how)


def rows(listing, split):
    return [(crop.name, crop.pid, crop.camera) for crop in listing.splits[split]]


def draw(root, *paths):
    for n, path in enumerate(paths):
        write(root / path, (n * 30, 9, 99))
    return root


PEOPLE = ("train/anna/1.jpg", "train/bert/1.png", "query/carl/cam2-a.jpg", "gallery/carl/cam7-b.webp")


def test_names_of_folders_are_identities(tmp_path):
    listing = find(draw(tmp_path / "mine", *PEOPLE))
    assert (listing.name, listing.layout) == ("mine", "identity-folders")
    assert rows(listing, "train") == [("train/anna/1.jpg", 1, 1), ("train/bert/1.png", 2, 1)]
    assert rows(listing, "query") == [("query/carl/cam2-a.jpg", 3, 1)]
    assert rows(listing, "gallery") == [("gallery/carl/cam7-b.webp", 3, 1)]
    assert listing.people == {1: "anna", 2: "bert", 3: "carl"}
    assert find(tmp_path) == listing


def test_layumis_folders_have_train_all_and_cameras_as_in_market(tmp_path):
    root = draw(
        tmp_path / "pytorch",
        "train_all/0002/0002_c1s1_000451_03.jpg",
        "train_all/0007/0007_c3s1_000451_03.jpg",
        "train/0002/0002_c1s1_000451_03.jpg",
        "val/0007/0007_c3s1_000451_03.jpg",
        "query/0001/0001_c1s1_001051_00.jpg",
        "gallery/0001/0001_c2s1_000301_00.jpg",
        "gallery/0000/0000_c6s1_000301_00.jpg",
        "gallery/-1/-1_c5s1_000301_00.jpg",
    )
    listing = find(root)
    assert rows(listing, "train") == [
        ("train_all/0002/0002_c1s1_000451_03.jpg", 2, 1),
        ("train_all/0007/0007_c3s1_000451_03.jpg", 7, 3),
    ]
    assert [row[1:] for row in rows(listing, "gallery")] == [(-1, 5), (0, 6), (1, 2)]
    assert listing.people == {}
    assert len(load_dataset(root, tmp_path / "cache", SIZE).gallery) == 3
    # A folder with a published layout in it is that one's, whatever else lies there.
    assert find(write_market(root)).layout == "market1501"


def test_train_and_test_make_the_test_images_query_and_gallery_at_once(tmp_path):
    root = draw(tmp_path / "birds", "train/a/1.jpg", "test/b/1.jpg", "test/b/2.jpg")
    listing = find(root)
    assert rows(listing, "query") == rows(listing, "gallery") == [("test/b/1.jpg", 2, 1), ("test/b/2.jpg", 2, 2)]
    assert "2 of 2 queries have another image of their identity" in listing.notes[0]
    assert not [finding for finding in inspect(listing).findings if "byte for byte" in finding.text]


def test_without_splits_all_is_for_training_and_must_be_asked_for(tmp_path):
    root = draw(tmp_path / "people", "anna/1.jpg", "bert/1.jpg", "a stray one.jpg")
    with pytest.raises(DataError, match="no data set found.*(?s:.)*without these ask for it by `data.layout`"):
        find(root)
    listing = find(root, "identity-folders")
    assert rows(listing, "train") == [("anna/1.jpg", 1, 1), ("bert/1.jpg", 2, 1)]
    assert not listing.splits["query"]
    draw(root, "anna/2.jpg", "bert/2.jpg", "carl/1.jpg", "carl/2.jpg")
    dataset = load_dataset(root, tmp_path / "cache", SIZE, "identity-folders")
    held = hold_out(dataset, 1, seed=0, cross_camera=False)
    assert (len(held.query), len(held.gallery), len(held.train)) == (1, 1, 4)


@pytest.mark.parametrize(("pattern", "cameras"), [(r"cam(\d+)-", [2, 7]), (r"-([a-z])\.", [1, 2]), (r"(cam.)", [1, 2])])
def test_cameras_by_a_pattern_of_ones_own(tmp_path, pattern, cameras):
    root = draw(tmp_path / "mine", *PEOPLE[2:])
    listing = find(root, camera=pattern)
    assert [row[2] for split in ("query", "gallery") for row in rows(listing, split)] == cameras


def test_patterns_that_cannot_be_used_are_refused(tmp_path):
    root = draw(tmp_path / "mine", *PEOPLE)
    with pytest.raises(DataError, match=r"2 of 4 images have no camera by `data.camera_pattern` .* is \S*train/anna/1"):
        find(root, camera=r"cam(\d)")
    with pytest.raises(ConfigError, match="is no regular expression"):
        find(root, camera="(")
    with pytest.raises(ConfigError, match="has no group"):
        find(root, camera=r"cam\d")
    with pytest.raises(ConfigError, match="is for identity-folders, and .* is market1501"):
        find(write_market(tmp_path / "market"), camera=r"c(\d)")


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("001", "1", "found the identities '001' and '1'"),
        ("Anna", "anna", "'Anna' and 'anna'"),
        ("a", "none", "how a missing one is written"),
        ("-7", "3", "found the identity -7, expected -1"),
    ],
)
def test_folders_that_could_mean_two_things_are_refused(tmp_path, one, other, said):
    root = draw(tmp_path / "mine", f"train/{one}/1.jpg", f"train/{other}/1.jpg", "test/x/1.jpg")
    with pytest.raises(DataError, match=re.escape(said)):
        find(root)


def manifest(capsys, root, file, *options):
    code = main(["--data.root", str(root), "--data.cache", str(file.parent / "cache"), "--write-manifest", str(file)])
    return code, capsys.readouterr()


def same(listing, other):
    """Whether two listings have the same images of the same people, whatever these are called."""
    images = (
        {split: sorted((c.path.resolve(), c.pid, c.camera) for c in crops) for split, crops in each.splits.items()}
        for each in (listing, other)
    )
    return next(images) == next(images)


def test_any_layout_becomes_a_manifest_that_reads_the_same(tmp_path, capsys):
    both = draw(tmp_path / "birds", "train/a/1.jpg", "test/b/1.jpg", "test/b/2.jpg")
    for root in (write_market(tmp_path / "market"), draw(tmp_path / "mine", *PEOPLE), both):
        file = root / "manifest-of-it.csv"
        _, said = manifest(capsys, root, file)
        assert f"{file}: {len({c.path for s in find(root).splits.values() for c in s})} images" in said.out
        assert same(find(root), find(file))
        assert find(file).people == find(root).people
    assert "test/b/1.jpg,b,query+gallery" in (both / "manifest-of-it.csv").read_text()


def test_no_cell_of_a_manifest_can_be_run_and_all_are_read_back(tmp_path, capsys):
    root = draw(
        tmp_path / "mine", *PEOPLE, "train/=cmd()/1.jpg", "train/@x/=y,z.jpg", "train/'q/1.jpg", "train/'=r/1.jpg"
    )
    file = root / "train" / "=1+1" / "out.csv"
    _, said = manifest(capsys, root, file)
    cells = [cell for row in csv.reader(file.open()) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@")]
    assert "'=cmd()" in cells
    assert "8 of them lie outside of its folder: reading it takes --data.outside" in said.out
    listing = find(file, outside=True)
    assert same(find(root, "identity-folders"), listing)
    assert set(listing.people.values()) == {"anna", "bert", "carl", "=cmd()", "@x", "'q", "'=r"}


def test_a_manifest_is_not_written_over_other_work(tmp_path, capsys):
    root = draw(tmp_path / "mine", *PEOPLE)
    (tmp_path / "notes.csv").write_text("my,notes\n")
    code, said = manifest(capsys, root, tmp_path / "notes.csv")
    assert code == 2
    assert "is not what this command writes there" in said.err
    root = draw(tmp_path / "odd", "train/a/1\t.jpg", "test/b/1.jpg")
    code, said = manifest(capsys, root, tmp_path / "odd.csv")
    assert code == 2
    assert "characters that are not seen; rename it first" in said.err
    assert not (tmp_path / "odd.csv").exists()
