"""The table of ranks: a line an image, with names that no spreadsheet runs."""

import csv

from svdnet_jax.reporting.ranks import HEAD, is_ranks, write_ranks
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.first_ranks import first_ranks
from svdnet_jax.safe_writing import is_csv


def test_each_image_has_its_line_and_names_are_no_formulas(tmp_path):
    query = Embeddings([[0.0], [9.0]], [5, 6], [1, 1], ["=HYPERLINK(1)", "b.jpg"])
    names = ["@SUM(A1)", "-1_c3s2_000010_02.jpg", "a,b\n.jpg", "z.jpg"]
    gallery = Embeddings([[1.0], [8.0], [3.0], [5.0]], [5, 0, 6, 5], [1, 2, 2, 2], names)
    path = tmp_path / "figures" / "ranks.csv"
    write_ranks(path, query, gallery, first_ranks(query, gallery, 4))
    assert is_csv(HEAD)(path)
    assert is_ranks(path)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))[1:]
    assert lines == [
        ["'=HYPERLINK(1)", "5", "1", "1", "a,b\n.jpg", "6", "2", "3.0", "0"],
        ["'=HYPERLINK(1)", "5", "1", "2", "z.jpg", "5", "2", "5.0", "1"],
        ["'=HYPERLINK(1)", "5", "1", "3", "-1_c3s2_000010_02.jpg", "0", "2", "8.0", "0"],
        ["b.jpg", "6", "1", "1", "-1_c3s2_000010_02.jpg", "0", "2", "1.0", "0"],
        ["b.jpg", "6", "1", "2", "z.jpg", "5", "2", "4.0", "0"],
        ["b.jpg", "6", "1", "3", "a,b\n.jpg", "6", "2", "6.0", "1"],
        ["b.jpg", "6", "1", "4", "'@SUM(A1)", "5", "1", "8.0", "0"],
    ]


def test_people_that_are_texts_have_columns(tmp_path):
    query = Embeddings([[0.0]], [5], [1], ["a.jpg"], people={5: "=anna"})
    gallery = Embeddings([[1.0], [8.0]], [5, 0], [2, 2], ["b.jpg", "c.jpg"], people={5: "=anna"})
    path = tmp_path / "ranks.csv"
    write_ranks(path, query, gallery, first_ranks(query, gallery, 2))
    assert is_ranks(path)
    with path.open(newline="", encoding="utf-8") as file:
        assert [line[-2:] for line in csv.reader(file)] == [
            ["query_person", "person"],
            ["'=anna", "'=anna"],
            ["'=anna", "0"],
        ]
