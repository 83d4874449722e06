"""`svdnet check-data`: what it prints and leaves behind, and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_data import write_manifest, write_market, write_truncated

from svdnet_jax.cli.check_data import main
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.data.cache import read_prepared

GOOD = """path,identity,camera,split
a.jpg,anna,1,train
b.jpg,bert,1,train
c.jpg,carl,1,query
d.jpg,carl,2,gallery
"""


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the command; exit code, and what went to stdout and to stderr."""

    def run(root, *options):
        code = main(["--data.root", str(root), "--data.cache", str(tmp_path / "cache"), *map(str, options)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_good_data_set(tmp_path, check):
    code, out, err = check(write_manifest(tmp_path / "mine", GOOD))
    assert (code, err) == (0, "")
    assert "mine: manifest" in out
    assert "0 errors, 0 warnings" in out
    assert "16x8: 4" in out


def test_data_without_cameras_get_a_note_with_the_option_and_code_0(tmp_path, check):
    text = "\n".join(line.replace(",camera", "").replace(",1,", ",").replace(",2,", ",") for line in GOOD.splitlines())
    code, out, err = check(write_manifest(tmp_path / "mine", text))
    assert (code, err) == (0, "")
    assert ["cameras", "none"] in [line.split() for line in out.splitlines()]
    assert "evaluation with query and gallery takes --eval.no-cross-camera" in out


def test_findings_are_printed_with_their_files(tmp_path, check):
    root = write_market(tmp_path / "[bold]Market")  # no markup
    for path in sorted((root / "bounding_box_train").glob("0*.jpg")):
        if path.is_file():
            write_truncated(path)
            os.link(path, path.with_name(path.name.replace("_01.jpg", "_02.jpg")))
    code, out, err = check(root)
    assert (code, err) == (1, "")
    assert "[bold]Market: market1501" in out
    differs = [line.split() for line in out.splitlines() if "differs" in line]
    assert ["train", "images", "8", "12936", "differs"] in differs
    assert "error: 8 images cannot be used" in out
    assert "    train/0002_c1s1_000001_01.jpg\n" in out
    assert "0007_c1s1_000001_02.jpg" not in out
    assert "    and 3 more; all are in report.json with --out FOLDER" in out
    assert "2 errors, 0 warnings" in out


def test_what_is_left_behind(tmp_path, check):
    root = write_manifest(tmp_path / "mine", GOOD)
    (root / "c.jpg").write_bytes(b"no image")
    assert check(root / "manifest.csv", "--out", tmp_path / "new" / "out")[0] == 1
    report = json.loads((tmp_path / "new" / "out" / "report.json").read_text())
    assert report["name"] == "mine"
    assert report["table"][0] == {"what": "train images", "found": 2, "expected": None}
    assert report["sizes"] == {"16x8": 3}
    [finding] = report["findings"]
    assert (finding["level"], finding["files"]) == ("error", ["query/c.jpg"])
    assert Image.open(tmp_path / "new" / "out" / "contact_sheet.png").size == (12 * 66 - 2, 2 * 130 - 2)


def test_a_prepared_folder_is_made_and_checked(tmp_path, check):
    root = write_manifest(tmp_path / "mine", GOOD)
    Image.new("RGB", (40, 90), "red").save(root / "a.jpg")
    prepared = tmp_path / "prepared"
    code, out, _ = check(root, "--prepare", prepared, "--data.height", "20", "--data.width", "10")
    assert code == 0
    assert "packing and decoding 4 images" in out
    assert read_prepared(prepared).train.images.shape == (2, 20, 10, 3)
    code, out, err = check(prepared)
    assert (code, err) == (0, "")
    assert "mine, train: 2 images of 2 identities, 20x10" in out
    assert "unchanged since they were written" in out
    images = np.load(prepared / "query_images.npy")
    np.save(prepared / "query_images.npy", images + 1)
    code, out, err = check(prepared)
    assert code == 2
    assert "query_images.npy: was changed since it was written" in err
    assert check(root, "--prepare", prepared)[0] == 2


def test_a_prepared_folder_of_another_layout_is_refused(tmp_path, check):
    check(write_manifest(tmp_path / "mine", GOOD), "--prepare", tmp_path / "prepared")
    code, out, err = check(tmp_path / "prepared", "--data.layout", "market1501")
    assert (code, out) == (2, "")
    assert "was prepared from manifest, and --data.layout market1501 is wanted" in err
    assert check(tmp_path / "prepared", "--data.layout", "manifest")[0] == 0


def test_help_says_which_size_to_prepare_and_what_a_prepared_folder_spares(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    data = PRESETS["paper-resnet50"].data
    assert f"preset that will train ({data.height} for paper-resnet50), as resizing twice costs detail" in said
    assert f"that of the preset, likewise ({data.width} for paper-resnet50)" in said
    assert "where tensorflow-datasets is not installed" in said


def test_checking_does_not_import_the_command_line_of_training():
    modules = "{'svdnet_jax.cli.train', 'svdnet_jax.runs.training'}"
    program = f"import sys, svdnet_jax.cli.check_data; print(*{modules} & {{*sys.modules}})"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no data set found"),
        ("path|identity|split\n", "line 1: found the columns path|identity|split"),
        (GOOD + "e.jpg,anna,1,train\n", "line 6: found no file e.jpg"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path, check, text, said):
    (tmp_path / "mine").mkdir()
    if text:
        write_manifest(tmp_path / "mine", text)
    code, out, err = check(tmp_path / "mine")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


def test_an_output_that_cannot_be_written_is_refused(tmp_path, check):
    root = write_manifest(tmp_path / "mine", GOOD)
    code, _, err = check(root, "--out", root / "a.jpg")
    assert code == 2
    assert "a.jpg" in err


def test_layout_may_be_said(tmp_path, check):
    root = write_market(tmp_path / "both")
    write_manifest(root, GOOD)
    assert check(root)[0] == 2
    assert check(root, "--data.layout", "manifest")[0] == 0
