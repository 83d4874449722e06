"""A trained network on other data, and as the start of another run."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from compiles import counted
from rich.console import Console

from experiments import cuhk03_rri, duke_rri
from experiments.market_rri import main
from svdnet_jax.cli import embed as embed_cli
from svdnet_jax.cli import evaluate as evaluate_cli
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Model, input_size
from svdnet_jax.errors import ConfigError
from svdnet_jax.models.pretrained.load import Pretrained, write_pretrained
from svdnet_jax.models.svdnet import create_model, parameter_paths
from svdnet_jax.reporting.log import read_log
from svdnet_jax.retrieval.direct import between
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.pixel_parts import pixel_parts
from svdnet_jax.runs import inference, pictures
from svdnet_jax.runs.dataset import load_configured_dataset
from svdnet_jax.runs.load import load_run
from svdnet_jax.training.init import as_pretrained, check_start
from svdnet_jax.training.state import init_state

pytestmark = pytest.mark.unoptimized

ONE = ("--parallel", "single")


@pytest.fixture
def trained(finished):
    """The run that all tests here look at, and leave as it is."""
    return finished


def evaluate(capsys, *options):
    assert evaluate_cli.main([*map(str, options), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def models(folder):
    """Of which networks the saved embeddings of a folder are."""
    return {Embeddings.load(folder / name).model for name in ("query.npz", "gallery.npz")}


def test_a_run_evaluated_from_its_folder_gives_what_its_log_says(trained, workshop, tmp_path, capsys):
    last = [record for record in read_log(trained / "metrics.jsonl") if record["event"] == "phase"][-1]
    root = next((workshop / "data").glob("synthetic-*"))
    options = ("--data.root", root, "--data.cache", workshop / "data", "--save", tmp_path)
    found = evaluate(capsys, "--run", trained, *options, "--intervals")
    less = found["embedding"]["less_pooled"]["mAP"]
    assert less["difference"] == pytest.approx(found["embedding"]["mAP"] - found["pooled"]["mAP"])
    assert less["interval"][0] <= less["difference"] <= less["interval"][1]
    for kind in ("embedding", "pooled"):
        assert {name: found[kind][name] for name in last[kind]} == pytest.approx(last[kind])
        # The run wrote its own from memory, the others are of its checkpoint.
        (model,) = models(trained / "embeddings" / kind) | models(tmp_path / kind)
        assert model.endswith(f"-{kind}")


def test_a_network_draws_lists_and_what_makes_images_alike(trained, workshop, tmp_path, capsys):
    options = ("--run", trained, "--data.cache", workshop / "data", "--figures", tmp_path)
    evaluate(capsys, *options, "--metric", "cosine")
    for kind in ("embedding", "pooled"):
        names = {path.name for path in (tmp_path / kind).iterdir()}
        assert names == {"alike.png", "camera_pairs.png", "cmc.png", "distances.png", "ranked_lists.png", "ranks.csv"}
    (tmp_path / "pooled" / "alike.png").write_text("somebody's")
    assert evaluate_cli.main([*map(str, options)]) == 2
    assert "alike.png: exists and is not what this command writes" in capsys.readouterr().err


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_parts_of_a_run_add_up_to_the_distances_of_its_evaluation(metric, trained, workshop):
    """Of the very embeddings that the run has kept, by both of them."""
    config = dataclasses.replace(PRESETS["tiny"].data, cache=workshop / "data")
    dataset = load_configured_dataset(dataclasses.replace(PRESETS["tiny"], data=config), Console(quiet=True))
    images = np.stack([dataset.query.images[3], dataset.gallery.images[5]])
    for kind, pixels in inference.from_run(trained).apply_pixelwise(images).items():
        query, gallery = (Embeddings.load(trained / "embeddings" / kind / f"{s}.npz") for s in ("query", "gallery"))
        ((distance,),) = between(query.features[3:4], gallery.features, np.array([[5]]), metric == "cosine")
        parts = pixel_parts(*np.asarray(pixels), metric, pictures.gallery_center(gallery, metric))
        together = parts.apart_query.sum() + parts.apart_gallery.sum()
        assert together == pytest.approx(distance if metric == "cosine" else distance**2, rel=1e-3)
        assert parts.alike_query.sum() == pytest.approx(parts.similarity, rel=1e-6)
        assert parts.alike_gallery.sum() == pytest.approx(parts.similarity, rel=1e-6)


def test_a_run_is_evaluated_on_a_manifest_of_other_people(trained, workshop, tmp_path, capsys):
    root = next((workshop / "data").glob("synthetic-*"))
    lines = ["path,identity,camera,split"]
    for split, folder in (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test")):
        for path in sorted((root / folder).glob("0*.jpg")):
            lines.append(f"{path},{path.name[:4]},{path.name[6]},{split}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    where = ("--data.root", tmp_path / "mine.csv", "--data.outside", "--data.cache", tmp_path)
    found = evaluate(capsys, "--run", trained, *where, "--save", tmp_path)
    saved = evaluate(capsys, "--query", tmp_path / "pooled/query.npz", "--gallery", tmp_path / "pooled/gallery.npz")
    assert saved == found["pooled"]


def test_a_folder_is_embedded_as_the_run_embedded_it(trained, workshop, tmp_path):
    folder = next((workshop / "data").glob("synthetic-*")) / "query"
    options = ["--images", str(folder), "--run", str(trained), "--out", str(tmp_path / "mine.npz")]
    assert embed_cli.main(options) == 0
    found = Embeddings.load(tmp_path / "mine.npz")
    own = Embeddings.load(trained / "embeddings" / "embedding" / "query.npz")
    assert found.names.tolist() == own.names.tolist()
    assert found.model == own.model
    # Batches of another size are summed in another order.
    np.testing.assert_allclose(found.features, own.features, rtol=1e-3, atol=1e-4)


def test_a_run_is_read_without_compiling_anything_of_it(trained):
    """What a network computes is compiled when it is used: a command that refuses a checkpoint does so at once."""
    with counted() as found:
        state = load_run(trained).state
    assert sum(found.values()) == 0
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


@pytest.mark.slow  # below an exported file starts another run
def test_a_run_starts_from_the_backbone_of_another(trained, workshop, tmp_path):
    out = tmp_path / "student"
    more = ["--model.weights", str(trained), "--rri.rounds", "0", "--base.steps", "4", "--base.milestones", "3"]
    arguments = ["--preset", "tiny", "--out", str(out), "--data.cache", str(workshop / "data"), *more, *ONE]
    # With a rate of almost nothing the weights stay where they started.
    assert main([*arguments, "--optimizer.learning-rate", "1e-12"]) == 0
    old, new = load_run(trained).state, load_run(out).state
    chex.assert_trees_all_close(new.params["backbone"], old.params["backbone"], atol=1e-9)
    assert float(abs(np.asarray(new.eigenlayer - old.eigenlayer)).max()) > 1e-3
    # What a run started from is not needed to go on.
    moved = trained.rename(trained.with_name("moved"))
    assert main([*arguments, "--optimizer.learning-rate", "1e-12"]) == 0
    moved.rename(trained)
    start = read_log(out / "metrics.jsonl")[0]
    assert start["weights"] == f"{trained}, step {int(old.step)}"


def test_weights_in_a_file_are_evaluated_as_they_are(trained, workshop, tmp_path, capsys):
    state = load_run(trained).state
    write_pretrained(tmp_path / "mine.safetensors", as_pretrained(state, "test", ("caffe",)))
    root = next((workshop / "data").glob("synthetic-*"))
    data = ("--data.root", root, "--data.cache", workshop / "data")
    weights = ("--weights", tmp_path / "mine.safetensors")
    alone = evaluate(capsys, *weights, "--preset", "tiny", *data)
    assert list(alone) == ["pooled"]
    assert alone["pooled"] == pytest.approx(evaluate(capsys, "--run", trained, *data)["pooled"])
    # A preset of another network tells the size; the weights tell the backbone.
    size = ("--size", *input_size(load_run(trained).config.data))
    assert evaluate(capsys, *weights, *size, *data) == alone


def test_the_backbone_is_that_of_the_weights_and_said(trained, tmp_path):
    state = load_run(trained).state
    write_pretrained(tmp_path / "mine.safetensors", as_pretrained(state, "test", ("caffe",)))
    found = inference.from_weights(str(tmp_path / "mine.safetensors"), inference.preset("paper-resnet50", (32, 16)))
    assert found.config.model.backbone == "mini"
    assert "read as mini, and not resnet50" in found.weights.note
    own = inference.from_weights(str(tmp_path / "mine.safetensors"), inference.preset("tiny", None))
    assert "read as" not in own.weights.note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run", "nowhere"], "nowhere: no run folder"),
        (["--weights", "nowhere.h5", "--run", "x"], "give --query"),
        (["--weights", "nowhere.h5"], "--model.weights nowhere.h5: no such file"),
        (["--weights", "x.h5", "--preset", "big"], "--preset big: unknown"),
        (["--run", "a", "--weights", "b"], "give --query and --gallery, or --run, or --weights"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_words(options, message, capsys):
    assert evaluate_cli.main(options) == 2
    assert message in capsys.readouterr().err


def test_stored_statistics_of_random_weights_are_refused(capsys, tmp_path):
    assert main(["--preset", "paper-resnet50", "--out", str(tmp_path)]) == 2
    assert "has no statistics to freeze" in capsys.readouterr().err


@pytest.mark.slow  # test_holdout.py has the split
def test_a_run_is_judged_on_the_people_it_held_out(workshop, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--preset", "tiny", "--out", str(out), "--data.cache", str(workshop / "data"), "--rri.rounds", "0"]
    options += ["--seed", "3", "--data.validation", "4", "--base.steps", "4", "--base.milestones", "3", *ONE]
    assert main(options) == 0
    capsys.readouterr()
    (last,) = [record for record in read_log(out / "metrics.jsonl") if record["event"] == "phase"]
    found = evaluate(capsys, "--run", out, "--data.cache", workshop / "data")
    assert found["embedding"]["mAP"] == pytest.approx(last["embedding"]["mAP"])
    assert found["embedding"]["valid_queries"] == read_log(out / "metrics.jsonl")[0]["valid_queries"]


def test_what_nothing_can_be_measured_on_is_refused_before_embedding(trained, workshop, tmp_path, capsys):
    root = next((workshop / "data").glob("synthetic-*"))
    lines = ["path,identity,camera,split"]
    lines += [f"{path},{path.name[:4]},1,train" for path in sorted((root / "bounding_box_train").glob("*.jpg"))[:20]]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    options = ["--run", str(trained), "--data.root", str(tmp_path / "mine.csv"), "--data.cache", str(tmp_path)]
    options.append("--data.outside")
    assert evaluate_cli.main(options) == 2
    assert "the query split has no images" in capsys.readouterr().err


def test_exported_weights_start_another_run_like_the_run_itself(trained, workshop, tmp_path, capsys):
    file = tmp_path / "mine.safetensors"
    own = evaluate(capsys, "--run", trained, "--data.cache", workshop / "data", "--export", file)
    config = load_run(trained).config
    height, width = config.data.height, config.data.width
    options = ("--weights", file, "--preset", "tiny", "--size", height, width)
    root = next((workshop / "data").glob("synthetic-*"))
    data = ("--data.root", root, "--data.cache", workshop / "data")
    found = evaluate(capsys, *options, *data, "--save", tmp_path / "weights")
    assert found["pooled"] == pytest.approx(own["pooled"])
    assert models(tmp_path / "weights" / "pooled") == models(trained / "embeddings" / "pooled")
    smaller = evaluate(capsys, *options[:-2], 24, 12, *data)
    assert smaller["pooled"]["mAP"] != pytest.approx(own["pooled"]["mAP"])


def test_weights_of_another_graph_are_refused(trained):
    config = dataclasses.replace(PRESETS["paper-resnet50"], model=Model(backbone="resnet18"))
    state = jax.eval_shape(lambda: init_state(create_model(config.model, 2), (64, 32), 0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), (state.params, state.batch_stats))
    params, batch_stats = (parameter_paths(tree["backbone"]) for tree in zeros)
    weights = Pretrained(params, batch_stats, (0.0,) * 3, (1.0,) * 3, None, "mine", ("torchvision",))
    with pytest.raises(ConfigError, match="mine was trained in another graph; give `model.layout` torchvision"):
        check_start(config, weights)
    check_start(dataclasses.replace(config, model=Model(backbone="resnet18", layout="torchvision")), weights)


def test_a_damaged_checkpoint_is_named(trained, tmp_path, capsys):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for path in (run / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(b"x")
    assert evaluate_cli.main(["--run", str(run)]) == 2
    assert "the checkpoint is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("experiment", [duke_rri, cuhk03_rri])
def test_experiments_without_built_in_data_ask_for_it(experiment, capsys):
    assert experiment.main([]) == 2
    assert "--data.root: not given" in capsys.readouterr().err


BARE = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "array_record", "grain", "h5py", "safetensors"):
    sys.modules[name] = None
from experiments.market_rri import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow  # test_cache.py reads such a folder without any image library
def test_a_prepared_folder_trains_where_little_is_installed(trained, workshop, tmp_path):
    prepared = next((workshop / "data").glob("prepared-*"))
    options = ["--preset", "tiny", "--rri.rounds", "0", *ONE]
    options += ["--data.root", prepared, "--out", tmp_path / "run", "--compute.cache", workshop / "compiled"]
    command = [sys.executable, "-c", BARE, *map(str, options)]
    # As many fake devices as in here, for which everything is compiled already.
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(jax.device_count())}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        next(record for record in read_log(folder / "metrics.jsonl") if record["event"] == "phase")
        for folder in (tmp_path / "run", trained)
    )
    # Threads may order sums in another way.
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)


def test_reading_leaves_a_run_as_it_is(trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    jax.block_until_ready(load_run(trained).state.params)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
