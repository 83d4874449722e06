"""What a CSV file says in the words of pandas and spreadsheets: read as it is meant, or refused with the line."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import write_manifest

from svdnet_jax.data.formats import texts
from svdnet_jax.data.formats.detect import find_layout
from svdnet_jax.errors import DataError
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.metrics import evaluate

IMAGES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")


def text(identities, cameras=("1", "1", "1", "2"), splits=("train", "query", "gallery", "gallery")):
    rows = zip(IMAGES, identities, cameras, splits, strict=True)
    return "path,identity,camera,split\n" + "".join(f"{','.join(row)}\n" for row in rows)


def pids(root):
    return [crop.pid for crops in find_layout(root, root / "unused").splits.values() for crop in crops]


def refused(root):
    with pytest.raises(DataError) as caught:
        find_layout(root, root / "unused")
    return str(caught.value)


def test_pandas_floats_are_the_numbers_that_they_were(tmp_path):
    assert pids(write_manifest(tmp_path / "a", text(["12.0", "5.0", "-1.0", "0.0"]))) == [12, 5, -1, 0]
    assert pids(write_manifest(tmp_path / "b", text(["anna", "carl", "-1.0", "0.0"]))) == [1, 2, -1, 0]
    assert pids(write_manifest(tmp_path / "c", text(["anna", "carl", "-1", "0000"]))) == [1, 2, -1, 0]
    listing = find_layout(
        write_manifest(tmp_path / "d", text(["1", "2", "3", "4"], ["3.0", "3.0", "1.0", "1"])), tmp_path
    )
    assert [crop.camera for crops in listing.splits.values() for crop in crops] == [3, 3, 1, 1]


def test_junk_and_distractors_of_pandas_count_as_in_market(tmp_path):
    # The junk image is nearest; as a person it would halve the mAP.
    splits = ("query", "gallery", "gallery", "gallery")
    listing = find_layout(write_manifest(tmp_path, text(["7.0", "-1.0", "7.0", "0.0"], "1222", splits)), tmp_path)
    query, gallery = (
        Embeddings(np.array(features), [c.pid for c in crops], [c.camera for c in crops])
        for features, crops in (
            ([[0.0]], listing.splits["query"]),
            ([[0.1], [0.2], [0.3]], listing.splits["gallery"]),
        )
    )
    assert evaluate(query, gallery).mAP == 1.0


def test_two_unicode_forms_of_one_name_are_one_person(tmp_path):
    forms = [unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD")]
    assert forms[0] != forms[1]
    assert pids(write_manifest(tmp_path, text(["ben", *forms, " " + forms[0] + " "]))) == [2, 1, 1, 1]


@pytest.mark.parametrize("pair", [("001", "1"), ("Anna", "anna"), ("anna b", "anna  b"), ("\uff11", "1"), ("-0", "0")])
@pytest.mark.parametrize("column", ["identity", "camera"])
def test_two_spellings_that_may_be_one_are_refused_with_both_lines(tmp_path, column, pair):
    values = ["x", pair[0], "x", pair[1]]
    said = refused(write_manifest(tmp_path, text(values) if column == "identity" else text("5566", values)))
    assert f"line 5: found the {column} {pair[1]!r}, and {pair[0]!r} on line 3; if they are one, write them" in said


@pytest.mark.parametrize("value", ["nan", "NaN", "NA", "None", "null", "<NA>", "#N/A"])
@pytest.mark.parametrize("column", ["identity", "camera"])
def test_missing_values_are_nobody(tmp_path, column, value):
    values = ["8", "9", value, "9"]
    said = refused(write_manifest(tmp_path, text(values) if column == "identity" else text("5566", values)))
    assert f"line 4: found the {column} {value!r}, which is how a missing one is written; take the row away" in said


@pytest.mark.parametrize("value", ["1e3", "1.5", "+7", "1.2e+18", ".5", "an\u200bna", "an\x07na"])
def test_numbers_in_short_and_invisible_characters_are_refused(tmp_path, value):
    assert f"line 3: found the identity {value!r}, " in refused(write_manifest(tmp_path, text(["8", value, "9", "9"])))


def test_a_comma_in_a_name_does_not_shift_the_columns(tmp_path):
    lines = ["path,split,identity,camera", "a.jpg,train,anna,1", "b.jpg,query,Smith, Anna,1", "c.jpg,gallery,carl,1"]
    assert "line 3: found '1' beyond the last column; put text with a comma" in refused(
        write_manifest(tmp_path, "\n".join(lines))
    )
    quoted = [line.replace("Smith, Anna", '"Smith, Anna"') for line in lines]
    assert pids(write_manifest(tmp_path / "quoted", "\n".join(quoted))) == [2, 1, 3]


def test_one_file_under_two_spellings_and_one_column_twice_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    said = refused(write_manifest(tmp_path, text(["1", "2", "3", "3"]) + "in/../a.jpg,3,1,gallery\n"))
    assert "line 6: found in/../a.jpg again, it is on line 2 already" in said
    twice = text(["1", "2", "3", "3"]).replace("path,identity", "identity,path,identity")
    assert "found the column identity more than once" in refused(write_manifest(tmp_path, twice))


@given(st.integers(-(10**14), 10**14))
def test_a_whole_number_survives_pandas(number):
    assert texts.spelled(f"{float(number)}".replace("-0.0", "0.0")) == str(number)
    assert not texts.doubt(str(number))
