"""`svdnet`: commands, help that teaches and is quick, hints for what people of other toolkits type, the wheel."""

import subprocess
import sys
import zipfile
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from svdnet_jax.cli import main, study, train
from svdnet_jax.cli.help import OPTIONS, short_help
from svdnet_jax.cli.study import STUDIES
from svdnet_jax.config.presets import PRESETS

ROOT = Path(__file__).parents[2]


def test_commands_are_listed_and_a_wrong_one_is_told_the_nearest(capsys):
    assert main.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in main.COMMANDS)
    assert main.main([]) == 2
    capsys.readouterr()
    assert main.main(["evalute"]) == 2
    assert "did you mean evaluate?" in capsys.readouterr().err
    assert main.main(["study", "contrl"]) == 2
    assert "did you mean control?" in capsys.readouterr().err
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("svdnet-jax ")


def test_a_nul_byte_in_an_argument_is_refused(capsys):
    """A shell cannot pass one; a caller in Python can."""
    assert main.main(["train", "--out", "a\0b"]) == 2
    assert "NUL byte" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_the_short_help_fits_two_screens(preset):
    lines = short_help("svdnet train", PRESETS[preset]).splitlines()
    assert len(lines) <= 100
    # Three settings may be too long for a line: lists of the user's own.
    assert sum(len(line) > 120 for line in lines) == 0
    assert sum(map(len, OPTIONS.values())) >= 20


LIGHT = [["--help"], ["train", "--help"], ["study", "--help"], *(["study", name, "--help"] for name in STUDIES)]


@pytest.mark.parametrize(
    "argv", [LIGHT[1], *([*names, "--help"] for names in (["study", "control"], ["embed"], ["export"]))], ids=" ".join
)
def test_help_imports_nothing_heavy(argv):
    """Help is to be there at once: JAX alone takes half a second."""
    heavy = "{'jax', 'flax', 'matplotlib', 'orbax', 'tensorflow_datasets', 'scipy'}"
    program = (
        "import sys\nfrom svdnet_jax.cli.main import main\n"
        f"try:\n    main({argv!r})\nexcept SystemExit:\n    pass\nprint(*{heavy} & {{*sys.modules}}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout
    assert done.stderr.split() == []


@pytest.mark.parametrize("name", STUDIES)
def test_help_of_a_study_has_all_of_its_own_options(name, capsys):
    module = import_module(study._module(name))
    own = {field.name for field in fields(module.Options if name == "all" else module.STUDY.options)} - {"run"}
    with pytest.raises(SystemExit):
        study.run(name, ["--help"], "study")
    printed = capsys.readouterr().out.partition("Its own options:")[2]
    assert {line.split()[0] for line in printed.splitlines() if line.startswith("  --")} == {
        f"--{each.replace('_', '-')}" for each in own
    }


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--lr", "0.1"], "--optimizer.learning-rate"),
        (["--epochs", "60"], "--base.steps"),
        (["--resume"], "the same command again"),
        (["--batch", "32"], "--data.batch-size"),
        (["--batch-size=32"], "--data.batch-size"),
        (["--gpus", "2"], "--parallel"),
        (["--config", "a.yaml"], "--preset"),
        (["--save_dir", "x"], "--out"),
        (["--height", "256"], "--data.height"),
        (["--eval-only"], "svdnet evaluate --run"),
        (["--weights", "x.pth"], "--model.weights"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_of_other_toolkits_get_a_hint(typed, told, capsys):
    assert train.main(typed) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_wheel_holds_all_of_the_package(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "svdnet_jax").rglob("*.py")}
    assert package | {"svdnet_jax/py.typed"} <= names
    assert not {name for name in names if name.startswith(("tests", "experiments", "benchmarks"))}


@pytest.mark.parametrize("size", [("7", "64"), ("1000000000", "64"), ("64", "1" + 20 * "0")])
@pytest.mark.parametrize("command", ["evaluate", "embed"])
def test_absurd_sizes_are_refused(command, size, tmp_path, capsys):
    (tmp_path / "w.safetensors").write_bytes(b"")
    more = ["--images", str(tmp_path), "--out", str(tmp_path / "o.npz")] if command == "embed" else []
    assert main.main([command, *more, "--weights", str(tmp_path / "w.safetensors"), "--size", *size]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--size {' '.join(size)}: height and width must be from 8 to 4096" in said


@pytest.mark.parametrize("side", ["height", "width"])
def test_absurd_sizes_to_prepare_are_refused(side, tmp_path, capsys):
    assert main.main(["check-data", "--data.root", str(tmp_path), f"--data.{side}", "1000000000"]) == 2
    assert f"--data.{side} 1000000000: must be from 8 to 4096 pixels" in capsys.readouterr().err
