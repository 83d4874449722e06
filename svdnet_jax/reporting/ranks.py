"""The table of ranks: for each query the first images of its ranking, by their file names, as CSV."""

import csv
import io
from pathlib import Path

from svdnet_jax.reporting.terminal import as_cell
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.first_ranks import FirstRanks
from svdnet_jax.safe_writing import is_csv, write_whole

HEAD = ("query", "query_pid", "query_camera", "rank", "name", "pid", "camera", "distance", "right")
"""Columns; `right` is 1 where the image shows the query's identity, else 0."""
PEOPLE = ("query_person", "person")
"""Columns behind them where identities are texts."""


def is_ranks(path: Path) -> bool:
    """Returns whether a file is a table of ranks."""
    return is_csv(HEAD)(path) or is_csv((*HEAD, *PEOPLE))(path)


def write_ranks(path: Path, query: Embeddings, gallery: Embeddings, ranks: FirstRanks) -> None:
    """Writes a table of ranks. Names that a spreadsheet would run as formulas get an apostrophe before them.

    Args:
        path: The file.
        query: The queries.
        gallery: The images they were ranked in.
        ranks: The head of each ranking.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)
    named = bool(query.people or gallery.people)
    table.writerow((*HEAD, *PEOPLE) if named else HEAD)
    names = [as_cell(name) for name in gallery.names.tolist()]
    for row, (found, distances) in enumerate(zip(ranks.rows.tolist(), ranks.distances.tolist(), strict=True)):
        pid = int(query.pids[row])
        asked = as_cell(str(query.names[row])), pid, int(query.cameras[row])
        for rank, (image, distance) in enumerate(zip(found, distances, strict=True), start=1):
            if image >= 0:
                whose = int(gallery.pids[image])
                right = int(whose == pid)
                people = [as_cell(query.person(row)), as_cell(gallery.person(image))] if named else []
                line = *asked, rank, names[image], whose, int(gallery.cameras[image]), distance, right
                table.writerow((*line, *people))
    write_whole(path, text.getvalue().encode())
