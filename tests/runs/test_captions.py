"""What stands under the pictures of a run's report."""

import numpy as np
import pytest

from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs.report import _short


@pytest.mark.parametrize(
    ("person", "shown"),
    [
        ("zoé", "zoé"),
        ("fourteen chars", "fourteen chars"),
        ("fifteen letters", "fifteen lette…"),
        ("安娜", "0007"),  # not in the figures' font
        (None, "0007"),
    ],
)
def test_people_are_called_by_names_that_fit_and_can_be_drawn(person, shown):
    query = Embeddings(np.ones((1, 2)), [7], [1], people={7: person} if person else {})
    assert _short(query, 0) == shown
