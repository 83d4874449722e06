"""What `svdnet serve` finds in the folder of a run: embeddings, network and pictures."""

import io
import shutil
from functools import cache

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from starlette.testclient import TestClient

from svdnet_jax.cli import embed
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs.directory import RunDir
from svdnet_jax.web import load
from svdnet_jax.web.answers import embed_image, map_points, search
from svdnet_jax.web.app import create_app
from svdnet_jax.web.guard import allowed_hosts
from svdnet_jax.web.load import Images, Once, load_served
from svdnet_jax.web.questions import Asked

pytestmark = pytest.mark.unoptimized


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """The network of a folder: reading it takes two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "from_run", cache(load.from_run))
        yield


def served(run, beside=None, gallery=None, images=None, console=None):
    return load_served(run, beside, gallery, images or Images(), console or Console(quiet=True))


@pytest.fixture(scope="module")
def own(finished):
    return served(finished)


def png(picture):
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def found(page, source, features, k=3):
    return search(page, Asked(source, "image", 0, features, None, k, False))["results"]


def test_a_run_keeps_four_embeddings_and_needs_nothing_more(own, finished):
    titles = [source.title for source in own.sources.values()]
    assert titles == [
        "After the last round, Eigenlayer's output",
        "After Step 0, Eigenlayer's output",
        "After the last round, Eigenlayer's input",
        "After Step 0, Eigenlayer's input",
    ]
    assert [bool(source.network) for source in own.sources.values()] == [True, False, True, False]
    assert own.title == "tiny on synthetic pedestrians"
    files = {key: RunDir(finished).embeddings(key.split("-")[1], "gallery", base="base" in key) for key in own.sources}
    for key, source in own.sources.items():
        assert np.array_equal(source.panel().gallery.features, Embeddings.load(files[key]).features)
        assert len(map_points(source)["x"]) == len(map_points(source)["y"])


def test_pictures_are_those_of_the_embeddings(own, dataset):
    for kind, split in (("query", dataset.query), ("gallery", dataset.gallery)):
        assert own.counts[kind] == len(split)
        for row in (0, len(split) - 1):
            assert np.array_equal(np.asarray(own.pictures[kind](row)), split.images[row])


def test_a_dropped_gallery_image_finds_itself_by_both_embeddings(own):
    row = 37
    answer = embed_image(own, png(own.pictures["gallery"](row)))
    assert list(answer["features"]) == ["0-embedding-last", "0-pooled-last"]
    for key, features in answer["features"].items():
        nearest = found(own, key, features)
        assert nearest[0]["row"] == row
        # Resized on the host here and in the compiled network there: to rounding the same.
        assert nearest[0]["distance"] < 1e-3 * nearest[1]["distance"]


def test_two_runs_are_side_by_side_and_only_on_the_same_images(own, finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    page = served(finished, beside=other)
    assert (len(page.sources), page.beside) == (8, "1-embedding-last")
    assert page.sources[page.beside].title.startswith("other: ")
    assert len(embed_image(page, png(page.pictures["gallery"](0)))["features"]) == 4
    for kind in ("embedding", "pooled"):
        path = RunDir(other).embeddings(kind, "query")
        query = Embeddings.load(path)
        half = Embeddings(query.features[::2], query.pids[::2], query.cameras[::2], query.names[::2], query.model)
        half.save(path)
    with pytest.raises(DataError, match="its query has .* side by side are runs that were tested on the same images"):
        served(finished, beside=other)


@pytest.fixture(scope="module")
def mine(own, finished, tmp_path_factory):
    """A folder of somebody's own images, embedded by the run."""
    folder = tmp_path_factory.mktemp("mine")
    for row in range(0, 60, 3):
        path = folder / "images" / f"camera{row % 2}" / f"{row:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        own.pictures["gallery"](row).save(path)
    arguments = ["--run", str(finished), "--images", str(folder / "images"), "--out", str(folder / "mine.npz")]
    assert embed.main(arguments) == 0
    return folder


def test_a_gallery_of_ones_own_is_searched_with_the_sureness_of_the_run(own, finished, mine):
    page = served(finished, gallery=mine / "mine.npz", images=Images(mine / "images"))
    assert list(page.sources) == ["own"]
    panel = page.sources["own"].panel()
    assert (page.counts, panel.gallery.names[0]) == ({"query": 0, "gallery": 20}, "camera0/000.png")
    assert np.array_equal(
        np.asarray(page.pictures["gallery"](0)), np.asarray(Image.open(mine / "images/camera0/000.png"))
    )
    nearest = found(page, "own", embed_image(page, png(page.pictures["gallery"](7)))["features"]["own"], k=2)
    assert nearest[0]["row"] == 7
    assert nearest[0]["distance"] < 1e-3 * nearest[1]["distance"]
    client = TestClient(create_app(page, allowed_hosts(open_to_others=False)), base_url="http://localhost")
    listed = client.get("/api/queries?source=own").json()
    assert (listed["set"], listed["total"], listed["entries"][0]["ap"]) == ("gallery", 20, [])
    about = client.get("/api/source?source=own").json()
    assert about["results"] == {}
    assert about["levels"] == client_levels(own)


def client_levels(page):
    client = TestClient(create_app(page, allowed_hosts(open_to_others=False)), base_url="http://localhost")
    return client.get("/api/source?source=0-embedding-last").json()["levels"]


def test_galleries_that_do_not_go_with_the_run_are_refused(finished, mine, tmp_path):
    gallery = Embeddings.load(mine / "mine.npz")
    for model, told in (("cafe-embedding", "of the model cafe-embedding"), ("", "nobody wrote down")):
        Embeddings(gallery.features, gallery.pids, gallery.cameras, gallery.names, model).save(tmp_path / "g.npz")
        with pytest.raises(ConfigError, match=f"`gallery` .*{told}"):
            served(finished, gallery=tmp_path / "g.npz", images=Images(mine / "images"))
    with pytest.raises(ConfigError, match="`gallery` needs `images`"):
        served(finished, gallery=mine / "mine.npz")
    with pytest.raises(ConfigError, match="do not go together"):
        served(finished, gallery=mine / "mine.npz", beside=finished)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / "empty" / "another.png")
    with pytest.raises(DataError, match="none of the 20 images is there"):
        served(finished, gallery=mine / "mine.npz", images=Images(tmp_path / "empty"))
    with pytest.raises(DataError, match="has none of the images of the run's query"):
        served(finished, images=Images(root=other_data(tmp_path)))


def other_data(tmp_path):
    """A data set in Market-1501's layout that the run never saw."""
    from small_data import write_market

    return write_market(tmp_path / "market")


def test_what_is_missing_is_told(finished, mine, tmp_path):
    said = Console(file=io.StringIO(), width=200)
    (mine / "images" / "camera0" / "000.png").rename(tmp_path / "000.png")
    page = served(finished, gallery=mine / "mine.npz", images=Images(mine / "images"), console=said)
    (tmp_path / "000.png").rename(mine / "images" / "camera0" / "000.png")
    assert "note: 1 of 20 images are not in" in said.file.getvalue()
    with pytest.raises(DataError, match="is not in the folder of images"):
        page.pictures["gallery"](0)
    with pytest.raises(ConfigError, match="`run` .*: is not the folder of a run"):
        served(tmp_path)


def test_a_run_without_checkpoints_is_shown_without_searches_for_new_images(finished, tmp_path):
    run, said = tmp_path / "kept", Console(file=io.StringIO(), width=300)
    shutil.copytree(finished, run)
    shutil.rmtree(RunDir(run).checkpoints)
    page = served(run, console=said)
    assert "has no checkpoint, so pictures from elsewhere cannot be searched for" in said.file.getvalue()
    assert not any(source.network for source in page.sources.values())
    with pytest.raises(ValueError, match="no network is there"):
        embed_image(page, png(page.pictures["gallery"](0)))
    shutil.rmtree(run / "embeddings")
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        served(run)


def test_a_run_that_has_not_ended_keeps_no_embeddings_yet(finished, tmp_path):
    run = tmp_path / "going"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "embeddings")
    with pytest.raises(ConfigError, match="keeps no embeddings yet"):
        served(run)


def test_features_of_another_state_of_the_run_are_refused(own):
    """Those that the page got before the server was started again with another run."""
    trained = embed_image(own, png(own.pictures["gallery"](0)))["features"]
    with pytest.raises(ValueError, match="dimensions"):
        found(own, "0-pooled-last", trained["0-embedding-last"])


def test_the_network_is_that_of_the_embeddings(own):
    assert own.networks["0"]().models["embedding"] == own.sources["0-embedding-last"].panel().gallery.model


def test_a_value_is_made_once_and_a_failure_is_tried_again():
    made = []

    def make():
        made.append(1)
        if len(made) == 1:
            raise ValueError("not yet")
        return len(made)

    once = Once(make)
    with pytest.raises(ValueError, match="not yet"):
        once()
    assert [once(), once()] == [2, 2]
