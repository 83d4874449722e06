"""Readers of files and small, sound files that they are tried on: paths to damage, and what reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import foreign_weights
import numpy as np
import small_data
from fake_run import fake_run
from scipy.io import savemat

from svdnet_jax.config.serialize import from_json
from svdnet_jax.data.cache import read_prepared, write_prepared
from svdnet_jax.data.reading import load_dataset
from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import ConfigError, DataError, LogError
from svdnet_jax.models.pretrained.load import load_pretrained
from svdnet_jax.reporting.log import check_records, read_log
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.foreign import load_embeddings
from svdnet_jax.retrieval.index import build_index, load_index, save_index
from svdnet_jax.runs.directory import RunDir, load_eigenlayer, read_environment, read_settings

REFUSALS = (ValueError, OSError, ConfigError, DataError, LogError)
"""What a reader raises for what it cannot read; commands turn it into a line."""


class Target(NamedTuple):
    """Files of one kind, sound."""

    paths: list[Path]
    """Those that are damaged, one at a time."""
    read: Callable[[], object]
    """Reads all of them; returns, or raises one of `REFUSALS`."""


def sample(n: int = 6) -> Embeddings:
    rng = np.random.default_rng(0)
    return Embeddings(rng.normal(size=(n, 4)).astype(np.float32), np.arange(n), np.ones(n, int))


def split(n: int) -> Split:
    return Split(np.zeros((n, 4, 2, 3), np.uint8), np.arange(n), np.ones(n, int), np.arange(n).astype(str))


def embeddings(folder: Path) -> Target:
    sample().save(folder / "e.npz")
    return Target([folder / "e.npz"], lambda: Embeddings.load(folder / "e.npz"))


def compressed(folder: Path) -> Target:
    np.savez_compressed(folder / "c.npz", features=np.ones((6, 4)), pids=np.arange(6), cameras=np.ones(6, int))
    return Target([folder / "c.npz"], lambda: Embeddings.load(folder / "c.npz"))


def torchreid(folder: Path) -> Target:
    arrays = {"qf": np.ones((3, 4)), "q_pids": np.arange(3), "q_camids": np.ones(3, int)}
    np.savez(folder / "t.npz", **arrays)
    return Target([folder / "t.npz"], lambda: load_embeddings(folder / "t.npz", "query"))


def matlab(folder: Path) -> Target:
    arrays = {"query_f": np.ones((3, 4)), "query_label": np.arange(3), "query_cam": np.ones(3, int)}
    savemat(folder / "m.mat", arrays)
    return Target([folder / "m.mat"], lambda: load_embeddings(folder / "m.mat", "query"))


def bare(folder: Path) -> Target:
    np.save(folder / "b.npy", np.ones((3, 4)))
    (folder / "b.csv").write_text("pid,camera,name\n1,1,a\n2,1,b\n3,2,c\n")
    return Target([folder / "b.npy", folder / "b.csv"], lambda: load_embeddings(folder / "b.npy", "query"))


def index(folder: Path) -> Target:
    save_index(build_index(sample()), folder / "i.npz")
    return Target([folder / "i.npz"], lambda: load_index(folder / "i.npz"))


def prepared(folder: Path) -> Target:
    write_prepared(Dataset("small", split(4), split(3), split(3)), folder / "p")
    return Target(sorted((folder / "p").iterdir()), lambda: read_prepared(folder / "p"))


def eigenlayer(folder: Path) -> Target:
    path = RunDir(folder).eigenlayer("base")
    path.parent.mkdir()
    np.save(path, np.ones((4, 3), np.float32))
    return Target([path], lambda: load_eigenlayer(RunDir(folder), "base"))


def settings(folder: Path) -> Target:
    RunDir(folder).config.write_text('{"preset": "tiny", "data": {"height": 32}}')
    return Target([RunDir(folder).config], lambda: from_json(read_settings(RunDir(folder))))


def environment(folder: Path) -> Target:
    RunDir(folder).environment.write_text('{"python": "3.11", "devices": ["cpu"]}')
    return Target([RunDir(folder).environment], lambda: read_environment(RunDir(folder)))


def log(folder: Path) -> Target:
    run = RunDir(folder)
    lines = [{"dataset": "x", "seed": 0} | record for record in fake_run(rounds=1)]
    run.log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return Target([run.log], lambda: check_records(run.log, read_log(run.log)))


def market(folder: Path) -> Target:
    root = small_data.write_market(folder / "market")
    return _data(root, sorted(root.rglob("*.jpg")), folder)


def manifest(folder: Path) -> Target:
    text = "path,identity,camera,split\na.jpg,1,1,train\nb.jpg,2,1,train\nc.jpg,3,1,query\nd.jpg,3,2,gallery\n"
    root = small_data.write_manifest(folder / "csv", text)
    return _data(root, [root / "manifest.csv"], folder)


def table(folder: Path) -> Target:
    """As OML has it, between semicolons; query set and gallery are one."""
    rows = ("label;path;split;is_query;is_gallery", "1;a.jpg;train;;", "2;b.jpg;train;;")
    text = "\n".join((*rows, "3;c.jpg;validation;True;True", "3;d.jpg;validation;True;True", ""))
    root = small_data.write_manifest(folder / "oml", text, name="oml.csv")
    return _data(root / "oml.csv", [root / "oml.csv"], folder)


def vehicleid(folder: Path) -> Target:
    root = folder / "vehicleid"
    for number in range(1, 7):
        small_data.write(root / "image" / f"000000{number}.jpg", (40 * number, 9, 9))
    (lists := root / "train_test_split").mkdir()
    (lists / "train_list.txt").write_text("0000001 11\n0000002 11\n0000003 12\n")
    (lists / "test_list_800.txt").write_text("0000004 3\n0000005 3\n0000006 4\n")
    return _data(root, sorted(lists.iterdir()), folder)


def msmt17(folder: Path) -> Target:
    root = small_data.write_msmt17(folder / "msmt17")
    return _data(root, sorted(root.glob("*.txt")), folder)


def cuhk03(folder: Path) -> Target:
    root = folder / "cuhk03"
    small_data.write_cuhk03_config(root)
    small_data.write_cuhk03_images(root)
    return _data(root, sorted(root.glob("*.mat")), folder)


def cuhk03_release(folder: Path) -> Target:
    root = folder / "release"
    small_data.write_cuhk03_config(root)
    small_data.write_cuhk03_mat(root / "cuhk-03.mat")
    return _data(root, [root / "cuhk-03.mat"], folder)


def _data(root: Path, paths: list[Path], folder: Path) -> Target:
    """Images are decoded each time: what was decoded before is kept by their sizes and times, in a folder anew."""
    number = iter(range(10**9))
    return Target(paths, lambda: load_dataset(root, folder / f"cache{next(number)}", small_data.SIZE))


def cache(folder: Path) -> Target:
    """What was decoded before is put right, by a line that says so, or made again."""
    root, kept = small_data.write_market(folder / "market"), folder / "kept"
    load_dataset(root, kept, small_data.SIZE)
    paths = sorted(path for path in kept.rglob("*") if path.is_file())
    return Target(paths, lambda: load_dataset(root, kept, small_data.SIZE))


def weights_h5(folder: Path) -> Target:
    return _weights(foreign_weights.write_h5(folder / "w.h5", foreign_weights.keras()))


def weights_tfjs(folder: Path) -> Target:
    found = foreign_weights.keras()
    path = foreign_weights.write_tfjs(folder / "tfjs", found, foreign_weights.keras_topology(found, 1e-3))
    return _weights(path, sorted(path.parent.iterdir()))


def weights_safetensors(folder: Path) -> Target:
    state = foreign_weights.torch_state("resnet50")
    return _weights(foreign_weights.write_safetensors(folder / "w.safetensors", state))


def weights_caffe(folder: Path) -> Target:
    layers = foreign_weights.caffenet(np.random.default_rng(0))
    return _weights(foreign_weights.write_caffemodel(folder / "w.caffemodel", layers))


def _weights(path: Path, paths: list[Path] | None = None) -> Target:
    return Target(paths or [path], lambda: load_pretrained(str(path)))


READERS = {
    made.__name__: made
    for made in (
        *(embeddings, compressed, torchreid, matlab, bare, index, prepared, eigenlayer, settings, environment, log),
        *(market, manifest, table, vehicleid, msmt17, cuhk03, cuhk03_release, cache),
        *(weights_h5, weights_tfjs, weights_safetensors, weights_caffe),
    )
}
