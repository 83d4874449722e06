"""A CSV file of one's own: what is read, and what is refused with the line it stands on."""

import pytest
from small_data import SIZE, write_manifest

from svdnet_jax.config.schema import Config, Eval
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.load import load_dataset
from svdnet_jax.errors import DataError

TEXT = """path,identity,camera,split
a.jpg,anna,hall,train
b.jpg,bert,hall,train
c.jpg,carl,hall,query
d.jpg,carl,entrance,gallery
"""


def find(root):
    return find_layout(root, root / "no cache is needed")


def rows(listing):
    return [(crop.name, crop.pid, crop.camera) for crops in listing.splits.values() for crop in crops]


def test_names_of_people_and_cameras_become_numbers(tmp_path):
    listing = find(write_manifest(tmp_path / "mine", TEXT))
    assert (listing.name, listing.layout) == ("mine", "manifest")
    assert rows(listing) == [("a.jpg", 1, 2), ("b.jpg", 2, 2), ("c.jpg", 3, 2), ("d.jpg", 3, 1)]


def test_integers_stay_what_they_are(tmp_path):
    text = "path,identity,camera,split\na.jpg,0012,7,train\nb.jpg,5,8,train\nc.jpg,-1,7,gallery\nd.jpg,0,7,gallery\n"
    assert rows(find(write_manifest(tmp_path, text))) == [
        ("a.jpg", 12, 7),
        ("b.jpg", 5, 8),
        ("c.jpg", -1, 7),
        ("d.jpg", 0, 7),
    ]


def test_junk_and_distractors_keep_their_meaning_beside_names(tmp_path):
    text = "path,identity,split\na.jpg,anna,query\nb.jpg,0,gallery\nc.jpg,-1,gallery\nd.jpg,anna,gallery\n"
    assert [pid for _, pid, _ in rows(find(write_manifest(tmp_path, text)))] == [1, 0, -1, 1]


def test_columns_in_any_order_with_others_and_without_cameras(tmp_path):
    text = '\ufeffSplit, note, Identity,path\nTrain,"tall, thin",anna,x/a.jpg\nquery,,bert,b.jpg\n\n'
    text += "gallery,,bert,c.jpg,\n"
    listing = find(write_manifest(tmp_path, text, ("x/a.jpg", "b.jpg", "c.jpg")))
    assert rows(listing) == [("x/a.jpg", 1, 1), ("b.jpg", 2, 1), ("c.jpg", 2, 1)]
    assert all(crop.path.is_file() for crops in listing.splits.values() for crop in crops)


def test_the_file_itself_may_be_given(tmp_path):
    write_manifest(tmp_path / "mine", TEXT, name="shop.csv")
    listing = find(tmp_path / "mine" / "shop.csv")
    assert listing.name == "shop"
    assert len(rows(listing)) == 4
    write_manifest(tmp_path / "mine", TEXT)
    assert find(tmp_path / "mine" / "manifest.csv").name == "mine"


def test_it_is_loaded_like_any_other(tmp_path):
    dataset = load_dataset(write_manifest(tmp_path / "mine", TEXT), tmp_path / "cache", SIZE)
    assert dataset.gallery.pids.tolist() == [3]
    assert dataset.train.names.tolist() == ["a.jpg", "b.jpg"]


def test_other_identities_of_the_same_files_are_read_anew(tmp_path):
    for column, other in (("pids", "d.jpg,anna,entrance"), ("cameras", "d.jpg,carl,yard")):
        before = load_dataset(write_manifest(tmp_path / "mine", TEXT), tmp_path / "cache", SIZE).gallery
        (tmp_path / "mine" / "manifest.csv").write_text(TEXT.replace("d.jpg,carl,entrance", other))
        after = load_dataset(tmp_path / "mine", tmp_path / "cache", SIZE).gallery
        assert getattr(before, column) != getattr(after, column)


def test_without_cameras_the_protocol_that_fits_is_named(tmp_path):
    from svdnet_jax.runs.dataset import count_valid

    text = "path,identity,split\na.jpg,1,train\nb.jpg,2,train\nc.jpg,3,query\nd.jpg,3,gallery\n"
    dataset = load_dataset(write_manifest(tmp_path / "mine", text), tmp_path / "cache", SIZE)
    with pytest.raises(DataError, match="`cross_camera` False"):
        count_valid(dataset, Config().eval)
    assert count_valid(dataset, Config(eval=Eval(cross_camera=False)).eval) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("e.jpg,anna,hall,train", r"line 6: found no file e.jpg in "),
        ("a.jpg,anna,hall,query", r"line 6: found a.jpg again, it is on line 2 already"),
        ("x,anna,hall,val", r"line 6: found the split 'val', expected train, query, gallery or query"),
        (",anna,hall,train", r"line 6: found no path"),
        ("x,,hall,train", r"line 6: found no identity"),
        ("x,anna,,train", r"line 6: found no camera"),
        ("x,-7,hall,train", r"line 6: found the identity -7, expected -1 \(junk\)"),
        ("x", r"line 6: found no identity"),
    ],
)
def test_each_problem_has_its_line(tmp_path, line, said):
    with pytest.raises(DataError, match=r"manifest.csv: .*" + said):
        find(write_manifest(tmp_path, TEXT + line + "\n"))


def test_five_problems_are_spelled_out_and_the_others_counted(tmp_path):
    with pytest.raises(DataError, match=r"line 6: .*line 10: .*; and 2 more$"):
        find(write_manifest(tmp_path, TEXT + "".join(f"x{n}.jpg,anna,hall,train\n" for n in range(7))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"line 1: found the columns of an empty file; expected path,identity,camera,split"),
        ("path|identity|split\n", r"line 1: found the columns path\|identity\|split; .* separated by commas"),
        ("path,identity,split\n", r"no images of manifest"),
        ("file,identity,split\n", r"\(path missing; camera is optional; path may be called img_path or"),
    ],
)
def test_headers_are_checked(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        find(write_manifest(tmp_path, text))


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"path,identity,split\n\xff\xfe\xfa,1,train\n")
    with pytest.raises(DataError, match="is no CSV file in UTF-8"):
        find(tmp_path)
