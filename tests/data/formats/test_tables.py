"""Tables of other toolkits and of spreadsheets: read by stated rules, and said; what is no such table is refused."""

import pytest
from small_data import SIZE, write_manifest

from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.errors import DataError

OURS = """path,identity,camera,split
a.jpg,anna,hall,train
b.jpg,bert,hall,train
c.jpg,carl,hall,query
d.jpg,carl,entrance,gallery
"""
OML = """label,path,split,is_query,is_gallery,x_1
1,a.jpg,train,,,
2,b.jpg,train,False,nan,
3,c.jpg,validation,True,True,
3,d.jpg,validation,0.0,1.0,
"""


def find(root):
    return find_layout(root, root.parent / "no cache is needed")


def rows(listing):
    return {split: [(crop.name, crop.pid, crop.camera) for crop in crops] for split, crops in listing.splits.items()}


def read(folder, text, name="manifest.csv", encoding="utf-8"):
    write_manifest(folder, "", name=name)
    (folder / name).write_text(text, encoding=encoding, newline="")
    return find(folder / name)


@pytest.mark.parametrize(
    ("text", "name", "encoding", "said"),
    [
        (OURS.replace(",", ";"), "excel.csv", "utf-8-sig", "its columns are separated by semicolons"),
        (OURS.replace(",", "\t"), "mine.tsv", "utf-8", "its columns are separated by tabs"),
        (OURS.replace(",", "\t").replace("\n", "\r\n"), "unicode.csv", "utf-16", "its columns are separated by tabs"),
        (
            OURS.replace("path,identity,camera", "img_path,pid,camid"),
            "a.csv",
            "utf-8",
            "column pid is read as identity",
        ),
        (OURS.replace("path,identity", "image_path,label"), "a.csv", "utf-8", "its column image_path is read as path"),
    ],
)
def test_the_same_table_in_other_clothes(tmp_path, text, name, encoding, said):
    ours, other = read(tmp_path / "ours", OURS), read(tmp_path / "other", text, name, encoding)
    assert rows(ours) == rows(other)
    assert ours.people == other.people == {1: "anna", 2: "bert", 3: "carl"}
    assert ours.notes == ()
    assert any(said in note for note in other.notes)


def test_what_was_taken_for_what_is_said_at_every_load(tmp_path):
    read(tmp_path / "mine", OURS.replace(",", ";"))
    first, again = [], []
    for lines in (first, again):
        load_dataset(tmp_path / "mine", tmp_path / "cache", SIZE, say=lines.append)
    assert "mine: its columns are separated by semicolons" in first
    assert "mine: its columns are separated by semicolons" in again


def test_our_own_names_are_taken_first(tmp_path):
    text = "path,identity,label,split\na.jpg,anna,7,train\nb.jpg,bert,8,query\n"
    listing = read(tmp_path, text)
    assert listing.people == {1: "anna", 2: "bert"}
    assert listing.notes == ()


def test_omls_flags_make_queries_and_gallery(tmp_path):
    listing = read(tmp_path, OML)
    assert rows(listing) == {
        "train": [("a.jpg", 1, 1), ("b.jpg", 2, 2)],
        "query": [("c.jpg", 3, 3)],
        "gallery": [("c.jpg", 3, 3), ("d.jpg", 3, 4)],  # leave-self-out: see test_one_set.py
    }
    assert "is_query and is_gallery say which images of its test are queries and gallery" in listing.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OURS.replace("camera", "pid").replace("identity", "label"), r"column identity more than once \(label, pid\)"),
        (OURS.replace(",split", ",part"), r"\(split missing; camera is optional"),
        (OURS.replace(",", "|"), "separated by commas, semicolons or tabs"),
        (OML.replace("is_gallery", "gallery"), "found is_query alone; give is_query and is_gallery"),
        (OML.replace("True,True", "False,"), "line 4: found the split validation, is_query False and is_gallery False"),
        (OML.replace("train,,", "train,True,"), "line 2: found the split train, is_query True"),
        (OML.replace("True,True", "True,maybe"), "line 4: found is_gallery 'maybe'; expected True or False"),
        (OML.replace("train,,,", "train,,,17.0"), r"line 2: found a box \(x_1 ...\); boxes are not cut out here"),
        (OURS + "e.jpg;anna;hall;train\n", "line 6: found no identity"),
    ],
)
def test_what_could_mean_two_things_is_refused(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read(tmp_path, text)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_manifest(tmp_path / "mine", OURS)
    columns = {"img_path": ["a.jpg", "b.jpg", "c.jpg"], "label": [3, 4, 4], "camid": [1, None, 2]}
    table = pyarrow.table({**columns, "split": ["train", "query", "gallery"], "note": [[1], [2], None]})
    file = tmp_path / "mine" / "people.parquet"
    parquet.write_table(table, file)
    with pytest.raises(DataError, match="people.parquet: line 3: found no camera"):
        find(file)
    parquet.write_table(table.set_column(2, "camid", [[1.0, 2.0, 2.0]]), file)
    assert rows(find(file)) == {
        "train": [("a.jpg", 3, 1)],
        "query": [("b.jpg", 4, 2)],
        "gallery": [("c.jpg", 4, 2)],
    }
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="people.parquet: is no parquet file that can be read"):
        find(file)


def test_parquet_without_its_packages_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("svdnet_jax.data.formats.tables.importlib.util.find_spec", lambda name: None)
    (tmp_path / "people.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="takes pyarrow or pandas; install one, or save the table as CSV"):
        find(tmp_path / "people.parquet")
