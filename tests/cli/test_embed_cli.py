"""`svdnet embed`: a folder of images to embeddings that can be searched."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from small_data import write, write_truncated

from svdnet_jax.cli.embed import main
from svdnet_jax.cli.search import main as search
from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import input_size
from svdnet_jax.data.found import find_images
from svdnet_jax.errors import ConfigError, DataError
from svdnet_jax.models.svdnet import create_model
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.runs import inference
from svdnet_jax.training.init import as_pretrained
from svdnet_jax.training.state import init_state

TINY = PRESETS["tiny"]
SIZE = input_size(TINY.data)
NAMES = ["a.jpg", "b.png", "e.jpeg", "in/c.bmp", "in/deeper/d.WEBP"]


@pytest.fixture(scope="module")
def embedder():
    """A network that nobody trained: what is tested here is how images get to it."""
    model = create_model(TINY.model, num_classes=2)
    state = init_state(model, SIZE, seed=5)
    kinds = ("embedding", "pooled")
    return inference._embedder(TINY, model, state, kinds, as_pretrained(state, "untrained", ()))


@pytest.fixture
def network(embedder, monkeypatch):
    """The options that stand for it."""
    asked = []

    def from_weights(spec, config):
        asked.append((spec, config))
        return embedder._replace(kinds=("pooled",))

    monkeypatch.setattr(inference, "from_weights", from_weights)
    yield ("--weights", "w.h5", "--preset", "tiny", "--size", "48", "24")
    for spec, config in asked:
        assert (spec, input_size(config.data)) == ("w.h5", (48, 24))
        assert config.model == TINY.model


@pytest.fixture
def folder(tmp_path):
    """Drawn images of one size in three folders, and what is to be passed over."""
    for n, name in enumerate(("b.png", "a.jpg", "in/c.bmp", "in/deeper/d.WEBP", "e.jpeg", ".hidden.png", ".git/f.png")):
        write(tmp_path / "photos" / name, (40 * n, 250 - 40 * n, 90), size=(32, 64))
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    (tmp_path / "photos" / "folder.png").mkdir()
    return tmp_path / "photos"


def embedded(embedder, folder, kind=None):
    return inference.embed_images(embedder, find_images(folder).crops, kind, Console(quiet=True))


def test_images_are_those_of_a_folder_in_the_order_of_names(embedder, folder):
    found = embedded(embedder, folder)
    assert found.names.tolist() == NAMES
    assert (found.pids.tolist(), found.cameras.tolist()) == ([-1] * 5, [0] * 5)
    pixels = jnp.asarray(np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in NAMES]))
    for kind in embedder.kinds:
        found, expected = embedded(embedder, folder, kind), getattr(embedder.apply(pixels), kind)
        # The network resizes images of one size itself, to rounding the same.
        np.testing.assert_allclose(found.features, expected, rtol=0, atol=1e-6 * float(abs(expected).max()))
        assert found.model == embedder.models[kind]


def noise(path, size, seed=0):
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(path)


def test_an_embedding_does_not_depend_on_what_lies_beside_the_image(embedder, tmp_path):
    features = {}
    for case, sizes in {"same": [(90, 70)] * 3, "others": [(30, 20), SIZE, (41, 77)], "alone": []}.items():
        (tmp_path / case).mkdir()
        noise(tmp_path / case / "m.png", (90, 70))
        for n, size in enumerate(sizes):
            noise(tmp_path / case / f"{'az'[n % 2]}{n}.png", size, seed=1 + n)
        found = embedded(embedder, tmp_path / case)
        features[case] = found.features[found.names == "m.png"][0]
    np.testing.assert_array_equal(features["same"], features["others"])
    # A batch of one is summed in another order than four.
    np.testing.assert_allclose(features["alone"], features["others"], rtol=1e-4, atol=1e-6)


def test_a_picture_stored_turned_is_embedded_like_the_upright_one(embedder, folder, capsys):
    noise(folder / "upright.png", (64, 32))
    stored = Image.open(folder / "upright.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6
    stored.save(folder / "turned.png", exif=exif)
    crops = find_images(folder).crops
    found = inference.embed_images(embedder, crops, None, Console())
    by_name = dict(zip(found.names.tolist(), found.features, strict=True))
    np.testing.assert_array_equal(by_name["turned.png"], by_name["upright.png"])
    assert "1 images were turned upright as their EXIF orientation says" in capsys.readouterr().out


def test_what_is_not_embedded_is_counted(network, folder, tmp_path, capsys):
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "linked").symlink_to(folder / "in")
    (folder / "x.heic").write_bytes(b"a telephone's")
    (folder / "Thumbs.db").write_bytes(b"Windows was here")
    assert main(["--images", str(folder), *network, "--out", str(tmp_path / "mine.npz")]) == 0
    assert (
        "not read: 1 .heic (first: x.heic), 1 .txt (first: notes.txt), 1 hidden files (first: .hidden.png), "
        "1 hidden folders (first: .git), 1 links that lead nowhere (first: gone.png), 1 links to folders "
        "(first: linked)\n"
    ) in capsys.readouterr().out


def test_a_manifest_gives_identities_and_cameras_and_its_splits(network, folder, tmp_path, capsys):
    mine = folder / "mine.csv"
    mine.write_text("path,identity,camera,split\nb.png,ben,1,query\na.jpg,anna,1,gallery\nin/c.bmp,ben,2,gallery\n")
    for split in ("query", "gallery"):
        asked = ["--images", str(mine), "--split", split, *network, "--out", str(tmp_path / f"{split}.npz")]
        assert main(asked) == 0
    out = capsys.readouterr().out
    assert "gallery.npz: 2 images of 2 people, " in out
    query, gallery = (Embeddings.load(tmp_path / f"{split}.npz") for split in ("query", "gallery"))
    assert (query.names.tolist(), query.pids.tolist(), query.cameras.tolist()) == (["b.png"], [2], [1])
    assert (gallery.names.tolist(), gallery.pids.tolist()) == (["a.jpg", "in/c.bmp"], [1, 2])
    write(tmp_path / "secret.png")
    (folder / "list.txt").write_text("../secret.png\n")
    listed = ["--images", str(folder / "list.txt"), *network, "--out", str(tmp_path / "l.npz")]
    assert main(listed) == 2
    assert "if that is meant, give --outside" in capsys.readouterr().err
    assert main([*listed, "--outside"]) == 0
    assert main(["--images", str(folder), "--split", "query", *network, "--out", str(tmp_path / "l.npz")]) == 2
    assert "--split is for a manifest" in capsys.readouterr().err


def test_batches_do_not_matter(embedder, folder):
    whole = embedded(embedder, folder)
    pairs = replace(TINY, eval=replace(TINY.eval, batch_size=2))
    parts = embedded(embedder._replace(config=pairs), folder)
    assert parts.names.tolist() == whole.names.tolist()
    # Likewise.
    np.testing.assert_allclose(parts.features, whole.features, rtol=1e-4, atol=1e-6)


def test_what_was_embedded_can_be_searched(network, embedder, folder, tmp_path, capsys):
    mine, index = str(tmp_path / "new" / "mine.npz"), str(tmp_path / "index.npz")
    assert main(["--images", str(folder), *network, "--out", mine]) == 0
    model, d = embedder.models["pooled"], Embeddings.load(mine).features.shape[1]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{mine}: 5 images, {d} dimensions, of untrained (model {model})"
    assert search(["--gallery", mine, "--index", index]) == 0
    capsys.readouterr()
    assert search(["--index", index, "--query", mine, "--k", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(answer["query"], answer["nearest"][0]["name"]) for answer in results] == [(name, name) for name in NAMES]
    embedded(embedder, folder, "embedding").save(mine)
    assert search(["--index", index, "--query", mine, "--k", "2"]) == 2
    assert "distances between features of different models mean nothing" in capsys.readouterr().err


def test_a_photograph_is_embedded_as_the_gallery_was_and_searched_for(embedder, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inference, "from_run", lambda _: embedder)
    for kind in embedder.kinds:
        embedded(embedder, folder, kind).save(tmp_path / "g.npz")
        asked = ["--gallery", str(tmp_path / "g.npz"), "--images", str(folder / "in" / "c.bmp"), "--run", "runs/a"]
        assert search([*asked, "--json", "--k", "2"]) == 0
        captured = capsys.readouterr()
        (answer,) = json.loads(captured.out)["results"]
        assert (answer["query"], answer["nearest"][0]["name"], answer["nearest"][0]["pid"]) == (
            "c.bmp",
            "in/c.bmp",
            None,
        )
        assert answer["nearest"][0]["distance"] < 1e-4 < answer["nearest"][1]["distance"]
    drawn = ["--figure", str(tmp_path / "found.png"), "--pictures", str(folder)]
    assert search([*asked, "--exclude-self", *drawn]) == 0
    assert (tmp_path / "found.png").is_file()
    Embeddings(np.ones((2, 3)), [1, 2], [1, 1], model="other").save(tmp_path / "g.npz")
    assert search(asked) == 2
    assert "and the gallery is of other; distances between features of different models" in capsys.readouterr().err


def test_images_that_cannot_be_decoded_are_named_together(embedder, folder):
    write_truncated(folder / "cut.jpg")
    (folder / "in" / "text.png").write_text("no image")
    with pytest.raises(DataError, match="2 of 7 images cannot be used") as caught:
        embedded(embedder, folder)
    first, second = str(caught.value).splitlines()[1:]
    assert first.startswith(f"    {folder}/cut.jpg: cannot be decoded (")
    assert second.startswith(f"    {folder}/in/text.png: cannot be decoded (it is no image)")
    for n in range(6):
        (folder / f"z{n}.png").write_text("no image")
    with pytest.raises(DataError, match=r"8 of 13 images (.*\n){6}    and 3 more$"):
        embedded(embedder, folder)


def test_weights_as_they_are_have_one_embedding(embedder, folder):
    with pytest.raises(ConfigError, match="`kind` embedding: weights as they are have no Eigenlayer; choose pooled"):
        embedded(embedder._replace(kinds=("pooled",)), folder, "embedding")


def test_what_cannot_be_embedded_is_refused_before_any_work(folder, tmp_path, capsys):
    def refused(images, *argv):
        assert main(["--images", str(images), "--out", str(tmp_path / "x.npz"), *argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    (tmp_path / "empty").mkdir()
    weights = ("--weights", "w.h5")
    assert "give --run or --weights" in refused(folder)
    assert "give --run or --weights" in refused(folder, *weights, "--run", "runs/x")
    assert "empty: no image there; expected files named *.bmp, *.gif, *.jpeg" in refused(tmp_path / "empty", *weights)
    assert "nope: is no folder and no file; give a folder of images" in refused(tmp_path / "nope", *weights)
    assert "--preset big: unknown; choose one of " in refused(folder, *weights, "--preset", "big")
    assert "w.h5: no such file" in refused(folder, *weights)
    assert "no run folder" in refused(folder, "--run", str(tmp_path))
    assert not (tmp_path / "x.npz").exists()


def test_a_stop_says_so(network, folder, tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "embed_images", stop)
    assert main(["--images", str(folder), *network, "--out", str(tmp_path / "x.npz")]) == 130
    assert capsys.readouterr().err == "stopped\n"
