"""The report: one file, nothing loaded from elsewhere, nothing unescaped, the log's own numbers."""

import base64
import re
from html.parser import HTMLParser

import pytest
from fake_run import fake_run
from matplotlib.figure import Figure

from svdnet_jax.reporting.figures.style import save
from svdnet_jax.reporting.report import write_report

HOSTILE = "</td><script>alert('x')</script>&\"{{ title }}{% raw %}"


class Page(HTMLParser):
    """Tags with their attributes, and the texts of table cells row by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def written(tmp_path):
    """Write a report; returns it as text, with the PNG files it was made from."""

    def write(records, control=None, title="A run"):
        figures = {"Loss": tmp_path / "a.png", f"Caption {HOSTILE}": tmp_path / "b.png"}
        for file in figures.values():
            save(Figure(figsize=(1, 1)), file)
        write_report(
            tmp_path / "report.html",
            title=title,
            config={"seed": 3, "data": {"root": HOSTILE, "synthetic": {"seed": 5}}},
            environment={"python": "3.11", HOSTILE: "x"},
            records=records,
            figures=figures,
            facts={"Data": f"synthetic {HOSTILE}"},
            control=control,
            conclusion=f"mAP 50.4 [48.1, 52.6].\nOf one seed {HOSTILE}",
        )
        return (tmp_path / "report.html").read_text(encoding="utf-8"), figures

    return write


def test_nothing_is_loaded_from_elsewhere(written):
    text, _ = written(fake_run(), control=fake_run(method="none"))
    assert re.search(r"https?://|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text)) is None
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes


def test_what_the_numbers_rest_on_stands_under_them(written):
    text, _ = written(fake_run())
    assert '<p class="note">mAP 50.4 [48.1, 52.6].</p>' in text
    assert text.index("Of one seed") < text.index("<h2>")


def test_every_image_is_embedded_byte_for_byte(written):
    text, figures = written(fake_run())
    sources = [a["src"].removeprefix("data:image/png;base64,") for t, a in Page(text).tags if t == "img"]
    assert [base64.b64decode(source) for source in sources] == [f.read_bytes() for f in figures.values()]


def test_hostile_text_is_escaped_everywhere(written):
    text, figures = written(fake_run(), title=HOSTILE)
    page = Page(text)  # refuses tags that are not closed in order
    assert "<script" not in text
    assert page.open == []
    assert ["data.root", HOSTILE] in page.rows
    assert [HOSTILE, "x"] in page.rows
    assert [a["alt"] for t, a in page.tags if t == "img"] == list(figures)
    # Title twice; caption as text and as alternative text; conclusion, fact, config value, environment key.
    assert text.count("&lt;script&gt;") == 8


def test_the_table_holds_the_numbers_of_every_border(written):
    rows = Page(written(fake_run(rounds=2))[0]).rows
    numbers = {row[0]: row[1:] for row in rows}
    assert numbers["base"] == ["0.046", "0.127", "63.0", "50.4", "49.2", "60.0", "48.0", "46.8"]
    assert numbers["1 W = US"][:3] == ["1.000", "1.027", "63.0"]
    last = ["0.225", "0.073", "64.6", "51.2", "50.0", "63.2", "49.6", "48.4"]
    assert numbers["2 relaxation"] == last
    assert numbers["data.synthetic.seed"] == ["5"]
    assert numbers["embedding.rank5"] == ["82.3 %"]


def test_a_restraint_that_was_not_evaluated_has_a_row_with_its_correlation(written):
    rows = {row[0]: row[1:] for row in Page(written(fake_run(rounds=2, evaluate_restraint=False))[0]).rows}
    assert rows["2 restraint"] == ["1.000", *[""] * 7]
    assert rows["2 relaxation"][1] == "0.073"


def test_further_test_sets_have_a_table_each(written):
    measured = {name: {"rank1": 0.125, "mAP": 0.25, "mAP_market": 0.375} for name in ("embedding", "pooled")}
    records = [
        record | ({"others": {HOSTILE: measured}} if record["event"] == "phase" else {})
        for record in fake_run(rounds=1)
    ]
    text, _ = written(records)
    rows = [row for row in Page(text).rows if row[3:6] == ["12.5", "25.0", "37.5"]]
    assert [row[0] for row in rows] == ["base", "1 restraint", "1 relaxation"]
    assert HOSTILE not in text


def test_the_headline_shows_last_values_with_the_base_and_the_control(written):
    text, _ = written(fake_run(rounds=2), control=fake_run(rounds=2, method="none"))
    cards = re.findall(r'<div class="card">(.*?)</div></div>', text)
    words = [" ".join(re.sub(r"<[^>]+>", " ", card).split()) for card in cards]
    assert words[0] == "embedding: rank-1 64.6 % base 63.0 % control 63.4 %"
    assert words[3] == "pooled: mAP 49.6 % base 48.0 % control 48.4 %"
    assert words[4] == "S(W) 0.225 base 0.046 control 0.040"
    assert "the relaxation of round 2" in text
    assert "ended after 1260 steps and 4 min 01 s of training" in text
    rows = [row for row in Page(text).rows if row[0] == "2 relaxation"]
    assert rows[1][1:7] == ["0.225", "0.040", "64.6", "63.4", "51.2", "50.6"]


def test_runs_of_different_length_are_compared_round_by_round(written):
    text, _ = written(fake_run(rounds=1), control=fake_run(rounds=3, method="none"))
    assert "control 63.2 %" in text
    assert "control 63.6 %" not in text
    text, _ = written(fake_run(rounds=3), control=fake_run(rounds=1, method="none"))
    assert re.search(r"control [0-9]", text) is None


def test_both_definitions_of_ap_and_s_are_explained(written):
    text, _ = written(fake_run())
    for words in ("plain average precision", "trapezoid rule", "WᵀW", "orthogonal"):
        assert words in " ".join(text.split())


def test_a_run_that_goes_on_says_so(written):
    records = [r for r in fake_run(rounds=2) if r["event"] != "end"]
    assert "The run has not ended" in written(records)[0]
    base_only = records[: records.index(next(r for r in records if r["event"] == "phase")) + 1]
    assert "the base (Step 0)" in written(base_only)[0]


def test_a_run_without_a_result_is_refused(written):
    with pytest.raises(ValueError, match="no phase of the run has ended"):
        written(fake_run()[:3])
