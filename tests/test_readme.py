"""The README says what the code does: its snippets run, its tables and those of the results come from stored logs."""

import io
import re
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
from documents import run_python
from rich.console import Console

from svdnet_jax.reporting.log import read_log
from svdnet_jax.reporting.progress import print_table
from svdnet_jax.studies import control, study, summary
from svdnet_jax.studies.differences import ends

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
STORED = ROOT / "docs" / "runs"


def printed(show):
    """What is printed to a file, 80 columns wide."""
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    show(console)
    return bare(console.file.getvalue())


def bare(text):
    """The lines without white space at their ends, and without empty ones around them."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n").splitlines()


def block(marker, text=README):
    """The lines of the code block after a marker."""
    match = re.search(rf"<!-- {re.escape(marker)} -->\n```[a-z]*\n(.*?)```", text, re.S)
    assert match, marker
    return bare(match[1])


def test_the_table_of_the_run_comes_from_its_log():
    records = read_log(STORED / "synthetic-0.jsonl")
    text = (ROOT / "docs" / "first-run.md").read_text()
    assert block("table docs/runs/synthetic-0.jsonl", text) == printed(lambda console: print_table(records, console))


def test_the_table_of_the_short_run_on_real_images_comes_from_its_log():
    records = read_log(STORED / "market-cpu.jsonl")
    text = (ROOT / "docs" / "results.md").read_text()
    assert block("table docs/runs/market-cpu.jsonl", text) == printed(lambda console: print_table(records, console))


def test_the_table_of_the_comparison_and_what_the_readme_claims_come_from_the_lines():
    lines = read_log(STORED / "paper" / "control.jsonl")
    text = (ROOT / "docs" / "first-run.md").read_text()
    assert block("table runs/paper/control.jsonl", text) == bare(study.text(control.STUDY, lines))
    (row,) = summary.differences(lines, {"": ("us", "none")}, summary.last_round(lines)).values()
    gains = dict(zip(summary.DIFFERENT, row, strict=True))
    for name in ("mAP", "pooled mAP"):
        assert f"{gains[name].seeds.value:+.1f} {ends(gains[name].seeds)}" in README
        assert gains[name].seeds.low > 0, "the README says that it gains"


@pytest.mark.parametrize("folder", ["other-cpu", "other-cpu-earlier"])
def test_the_numbers_of_other_cpus_come_from_their_lines(folder):
    lines = read_log(STORED / folder / "control.jsonl")
    results = (ROOT / "docs" / "results.md").read_text()
    assert block(f"table runs/{folder}/control.jsonl", results) == bare(study.text(control.STUDY, lines))
    for gains in gains_by_seed(lines):
        assert gains.min() > 0, "the results say that it gains with every seed"
        each = [f"{gain:+.1f}" for gain in gains]
        assert f"{', '.join(each[:-1])} and {each[-1]}" in " ".join(results.split())


def test_what_the_readme_says_of_another_cpu_and_of_single_runs_is_in_the_lines():
    ours, other = (read_log(STORED / folder / "control.jsonl") for folder in ("paper", "other-cpu"))
    (row,) = summary.differences(other, {"": ("us", "none")}, summary.last_round(other)).values()
    gains = dict(zip(summary.DIFFERENT, row, strict=True))
    said = [f"{gains[name].seeds.value:+.1f} {ends(gains[name].seeds)}" for name in ("mAP", "pooled mAP")]
    assert f"five seeds gave {' and '.join(said)}." in README
    single = np.concatenate([gains_by_seed(lines)[0] for lines in (ours, other)])
    assert f"between {single.min():.1f} and {single.max():.1f}" in README


def gains_by_seed(lines):
    """What RRI gains in mAP over its control, by the output and by the input."""
    ours, theirs = (summary.at_round(lines, name, -1) for name in ("us", "none"))
    return [summary.values(ours, kind, "mAP") - summary.values(theirs, kind, "mAP") for kind in ("embedding", "pooled")]


def tables(name=r"[\w-]+"):
    """The tables of the results, all or those of one study, which other tests compare with the stored lines."""
    documents = [(ROOT / "docs" / page).read_text() for page in ("results.md", "first-run.md")]
    marked = rf"<!-- table \S*/{name}\.jsonl -->\n```\n(.*?)```"
    return "\n".join(table for each in documents for table in re.findall(marked, each, re.S))


INTERVAL = re.compile(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]")


def test_every_difference_with_an_interval_is_one_of_a_table():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    said = {each for page in pages for each in INTERVAL.findall(" ".join(page.read_text().split()))}
    assert len(said) > 50
    assert said - {*INTERVAL.findall(" ".join(tables().split()))} == set()


@pytest.mark.parametrize("name", [path.stem for path in sorted((STORED / "paper").glob("*.jsonl"))])
def test_the_numbers_that_an_experiment_leads_to_expect_are_in_its_tables(name):
    text = (ROOT / "experiments" / f"{name}.py").read_text().partition('"""')[2].partition('"""')[0]
    expected = " ".join(text.split()).partition("To expect: ")[2].partition("(docs/")[0]
    assert expected
    known = {*re.findall(r"[+-]?\d+\.\d+", tables(name))}
    assert {*re.findall(r"[+-]?\d+\.\d+", expected)} <= known


def snippets():
    """The README's blocks of Python; one that begins with `# continued` goes on from the one before."""
    blocks = []
    for code in re.findall(r"```python\n(.*?)```", README, re.S):
        if code.startswith("# continued\n"):
            blocks[-1] += code
        else:
            blocks.append(code)
    return blocks


@pytest.mark.parametrize("code", snippets())
def test_snippets_run(code):
    assert run_python(code, JAX_NUM_CPU_DEVICES="8")


DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))


def prose(document):
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M)


def anchors(document):
    """The anchors of a document: of its headings, as GitHub makes them, and of the API page its names."""
    headings = (
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each) for each in re.findall(r"^#+ (.*)$", prose(document), re.M)
    )
    named = re.findall(r"^::: (\S+)$", document.read_text(), re.M)
    return {*named, *(re.sub(r"[^\w\- ]", "", each.strip().lower()).replace(" ", "-") for each in headings)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_pictures_exist_and_links_lead_somewhere(document):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(document)):
        path, _, anchor = link.partition("#")
        place = document.parent / path if path else document
        assert place.exists(), link
        assert not anchor or anchor in anchors(place), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_tests_and_names_of_the_package_that_are_named_are_there(document):
    files = [*(ROOT / "tests").rglob("*.py")]
    tests = {*(path.name for path in files), *re.findall(r"def (test_\w+)", "\n".join(map(Path.read_text, files)))}
    for code in re.findall(r"`([^`\n]+)`", prose(document)):
        assert {*re.findall(r"\btest_\w+(?:\.py)?", code.replace("test_list_800", ""))} <= tests, code
        for name in re.findall(r"svdnet_jax(?:\.\w+)+(?![\w/]*/)", code):
            assert resolve_name(name), name


def test_the_two_lines_are_there_word_for_word():
    assert "pip install -e . && python -m experiments.market_rri\n" in README
    assert "pip install -e '.[test]' && pytest\n" in README
