"""The site: pages show what their code prints, the API page has the front door, nothing comes from elsewhere."""

import dataclasses
import inspect
import re
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import yaml
from documents import PAGES, ROOT, blocks, check, rewritten
from test_front_door import NAMES

from svdnet_jax.config import schema
from svdnet_jax.config.schema import Config
from svdnet_jax.retrieval import Metric

sys.path.append(str(ROOT / "docs" / "site"))
import pages

SECTIONS = {
    name: found for name, found in vars(schema).items() if dataclasses.is_dataclass(found) and found is not Config
}
"""Classes of settings, which are fields of `Config` or of each other."""
PUBLIC = [(package, name) for package, names in NAMES.items() for name in names.split() if name != "__version__"]
OBJECTS = {
    f"{package}.{name}": found
    for package, name in PUBLIC
    if not inspect.ismodule(found := getattr(import_module(package), name))
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_show_what_their_blocks_print(page, tmp_path):
    check(page.read_text("utf-8"), tmp_path)


PAGE = """Words.

```python
print("one", 2.5)
```

{marker}```text
{shown}
```

```sh
echo three
```

```text
three
```

<!-- not run -->
```sh
exit 7
```
"""


@pytest.mark.parametrize(
    ("marker", "shown", "right"),
    [
        ("", "one 2.5", True),
        ("", "one 2.6", False),
        ("<!-- trained -->\n", "one 2.6", True),
        ("<!-- trained -->\n", "two 2.5", False),
    ],
)
def test_a_page_that_shows_something_else_is_noticed(marker, shown, right, tmp_path):
    page = PAGE.format(marker=marker, shown=shown)
    assert [block.language for block in blocks(page)] == ["python", "sh"]
    if right:
        check(page, tmp_path)
        return
    with pytest.raises(AssertionError, match="one"):
        check(page, tmp_path)
    check(rewritten(page, tmp_path), tmp_path)


def test_output_that_a_page_does_not_show_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match="does not show"):
        check("```python\nprint(1)\n```\n", tmp_path)


def test_the_api_page_has_the_names_of_the_front_door():
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
    settings = {f"{Config.__module__}.{name}" for name in SECTIONS}
    assert sorted(listed) == sorted(settings | OBJECTS.keys())


def described(found):
    """Which arguments or fields there are, and which of them have words of their own."""
    there = set(inspect.signature(found).parameters) - {"parent", "name"}
    if inspect.isclass(found):
        return there, set(re.findall(r'^    (\w+): .*\n    """', inspect.getsource(found), re.M))
    return there, set(re.findall(r"^    (\w+): \S", inspect.getdoc(found) or "", re.M))


DESCRIBED = [*OBJECTS.values(), *SECTIONS.values()]


@pytest.mark.parametrize(
    "found", [each for each in DESCRIBED if callable(each) and each is not Metric], ids=lambda found: found.__name__
)
def test_every_argument_and_field_is_described(found):
    there, words = described(found)
    sections = (
        {field.name for field in dataclasses.fields(found) if dataclasses.is_dataclass(field.type)}
        if found in (Config, *SECTIONS.values())
        else set()
    )
    assert there - words <= sections


@pytest.mark.parametrize(
    ("html", "foreign"),
    [
        ('<script src="https://unpkg.com/a.js"></script>', 1),
        ("<img src=//a.b/c.png>", 1),
        ('<link href="https://fonts.googleapis.com/css" rel="stylesheet">', 1),
        ('<link rel="stylesheet" href="assets/a.css"><script src="a.js"></script><img src="a.png">', 0),
        ('<a href="https://arxiv.org">the paper</a>', 0),
    ],
)
def test_a_page_that_would_load_from_another_machine_is_refused(html, foreign):
    assert len(pages.foreign(html)) == foreign
    page = SimpleNamespace(file=SimpleNamespace(src_path="a.md"))
    if foreign:
        with pytest.raises(ValueError, match="loads from another machine"):
            pages.on_post_page(html, page=page, config={})
    else:
        assert pages.on_post_page(html, page=page, config={}) == html


def test_links_to_source_files_and_folders_become_text():
    docs = ROOT / "docs"
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(docs / "devices.md")))
    text = "[code](../svdnet_jax/lazy.py) [runs](runs/paper) [data](data.md) [bad](nowhere.md) ![x](figures/curves.png)"
    assert (
        pages.on_page_markdown(text, page=page, config={"docs_dir": str(docs)}, files=None)
        == "code runs [data](data.md) [bad](nowhere.md) ![x](figures/curves.png)"
    )


def test_the_workflow_does_what_ci_does():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]
    steps = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    assert "bash .ci/run" in steps["gate"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.12", "3.13"]
    (command,) = (run for run in steps["tests"] if run)
    done = subprocess.run(
        ["bash", "-c", command.replace("bash -euc", "echo")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "pip install -e '.[test]' && pytest\n"
