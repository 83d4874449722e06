"""A page that the tests in this folder share."""

import pytest
from drawn import drawn_page


@pytest.fixture(scope="session")
def page():
    return drawn_page()
