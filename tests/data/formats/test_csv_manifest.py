"""A CSV file of one's own: what is read, and what is refused with the line it stands on."""

import pytest
from small_data import SIZE, write_manifest, write_market

from svdnet_jax.config.schema import Config, Eval
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import ConfigError, DataError

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


LISTS = {
    "train": "img_path,pid,camid\na.jpg,0,1\nb.jpg,3,1\n",
    "query": "img_path,pid,camid\nc.jpg,3,1\n",
    "gallery": "img_path,pid,camid\nd.jpg,3,2\ne.jpg,0,2\n",
}


def write_lists(root, **changes):
    for name, text in (LISTS | changes).items():
        write_manifest(root, text, [f"{letter}.jpg" for letter in "abcde"], name=f"{name}.csv")
    return root


def test_a_list_for_each_split_lies_in_place_of_a_manifest(tmp_path):
    listing = find(write_lists(tmp_path / "mine", train="img_path,pid,camid\na.jpg,1,1\nb.jpg,2,1\n"))
    assert (listing.name, listing.layout) == ("mine", "manifest")
    assert {split: [(crop.name, crop.pid) for crop in crops] for split, crops in listing.splits.items()} == {
        "train": [("a.jpg", 1), ("b.jpg", 2)],
        "query": [("c.jpg", 3)],
        "gallery": [("d.jpg", 3), ("e.jpg", 0)],
    }
    assert "no column split in train.csv, query.csv, gallery.csv: the name of the file says it" in listing.notes


def test_training_numbered_from_zero_is_apart_from_the_test(tmp_path):
    listing = find(write_lists(tmp_path))
    assert [pid for _, pid, _ in rows(listing)] == [4, 7, 3, 3, 0]
    assert any("numbered from 0 and taken for others" in note and "0 is 4 here" in note for note in listing.notes)


def test_names_mean_one_person_in_all_lists_and_are_refused_by_file_and_line(tmp_path):
    texts = {name: text.replace(",3,", ",anna,") for name, text in LISTS.items()}
    listing = find(write_lists(tmp_path / "good", **texts))
    assert listing.people == {1: "anna"}
    texts["query"] = texts["query"].replace("anna", "Anna")
    with pytest.raises(DataError, match=r"bad: query.csv, line 2: found .*'Anna', and 'anna' on train.csv, line 3"):
        find(write_lists(tmp_path / "bad", **texts))


def test_an_image_may_be_in_the_lists_of_queries_and_gallery_but_in_no_other_two(tmp_path):
    alone = dict.fromkeys(LISTS, "path,identity\n")
    both = "path,identity\nc.jpg,3\nd.jpg,3\n"
    listing = find(write_lists(tmp_path / "good", train="path,identity\na.jpg,1\n", query=both, gallery=both))
    assert len({crop.camera for crop in listing.splits["query"]}) == 2  # leave-self-out
    with pytest.raises(DataError, match=r"query.csv, line 2: found c.jpg again, it is on train.csv, line 2 already"):
        find(write_lists(tmp_path / "bad", **alone | {"train": "path,identity\nc.jpg,1\n", "query": both}))
    with pytest.raises(DataError, match=r"gallery.csv, line 2: found c.jpg again"):
        find(write_lists(tmp_path / "other", **alone | {"query": both, "gallery": "path,identity\nc.jpg,4\n"}))


def test_one_list_is_of_the_split_that_its_name_or_the_option_says(tmp_path):
    root = write_lists(tmp_path, train="img_path,pid,camid\na.jpg,1,1\nb.jpg,2,2\n")
    sizes = {
        split: [len(crops) for crops in find_layout(root / file, root, split=asked).splits.values()]
        for split, file, asked in (("train", "train.csv", None), ("asked", "train.csv", "query+gallery"))
    }
    assert sizes == {"train": [2, 0, 0], "asked": [0, 2, 2]}
    (root / "train.csv").rename(root / "list.csv")
    with pytest.raises(DataError, match="split missing.*call the file train.csv and so on, or give `data.split`"):
        find(root / "list.csv")
    assert len(find_layout(root / "list.csv", root, split="train").splits["train"]) == 2


def test_a_split_is_not_said_twice(tmp_path):
    with pytest.raises(ConfigError, match="`data.split` train: .* says the splits itself"):
        find_layout(write_lists(tmp_path / "lists"), tmp_path, split="train")
    with pytest.raises(ConfigError, match="`data.split` train: .* says the splits itself"):
        find_layout(write_manifest(tmp_path / "mine", TEXT), tmp_path, split="train")
    with pytest.raises(ConfigError, match="is for lists, and .* is market1501"):
        find_layout(write_market(tmp_path / "market"), tmp_path, split="train")


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
