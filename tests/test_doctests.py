"""The examples in docstrings run and print what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "svdnet_jax").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]
EXAMPLES = [
    example
    for name in MODULES
    for example in doctest.DocTestFinder(exclude_empty=True).find(import_module(name))
    if example.examples
]
LEAST = (
    "correlation decorrelate match_columns spectrum shuffle_batches pk_batches evaluate search create_backbone "
    "make_optimizer make_preprocess"
)
"""Names of the front door that have one."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_in_docstrings(example):
    said = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert result.attempted > 0
    assert not result.failed, "".join(said)


def test_the_main_functions_have_an_example():
    assert set(LEAST.split()) <= {example.name.rsplit(".", 1)[1] for example in EXAMPLES}
