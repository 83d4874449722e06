"""The made-up data set: names, counts, who appears where, and that it is the same every time."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image

from svdnet_jax.config.schema import Synthetic
from svdnet_jax.data.synthetic import generate
from svdnet_jax.data.synthetic.cameras import sample_cameras
from svdnet_jax.data.synthetic.crops import render
from svdnet_jax.data.synthetic.generate import cast, contact_sheet, count_images, fingerprint, write_synthetic
from svdnet_jax.data.synthetic.identities import sample_identity

SMALL = Synthetic(train_identities=4, train_images=5, test_identities=4, gallery_images=2, distractors=7, junk=7)
# Market-1501's: identity, camera, sequence, frame, box.
NAME = re.compile(r"(-1|\d{4})_c([1-6])s([1-6])_(\d{6})_(\d{2})\.jpg")


def read(root):
    """File contents by path below the root."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def parse(root, folder):
    """(pid, camera) of each image of a folder."""
    matches = [NAME.fullmatch(path.name) for path in sorted((root / folder).iterdir())]
    assert all(matches)
    return [(int(m[1]), int(m[2])) for m in matches]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "deeper" / "data"
    write_synthetic(folder, SMALL)
    return folder


def test_layout_and_counts(root):
    assert sorted(p.name for p in root.iterdir()) == [
        "bounding_box_test",
        "bounding_box_train",
        "query",
    ]
    train, gallery, query = (parse(root, folder) for folder in ("bounding_box_train", "bounding_box_test", "query"))
    assert len(train) == SMALL.train_identities * SMALL.train_images
    assert set(Counter(pid for pid, _ in train).values()) == {SMALL.train_images}
    assert len({pid for pid, _ in query}) == SMALL.test_identities
    assert [pid for pid, _ in gallery].count(0) == SMALL.distractors
    assert [pid for pid, _ in gallery].count(-1) == SMALL.junk
    # One query, and the asked-for gallery images, for each identity and camera.
    assert set(Counter(query).values()) == {1}
    assert Counter(seen for seen in gallery if seen[0] > 0) == dict.fromkeys(query, SMALL.gallery_images)
    assert count_images(SMALL) == len(train) + len(gallery) + len(query)


def test_train_and_test_share_nobody(root):
    train = {pid for pid, _ in parse(root, "bounding_box_train")}
    test = {pid for pid, _ in parse(root, "query")}
    assert not train & test
    assert min(train | test) > 0
    assert min(train) < max(test)  # interleaved
    assert min(test) < max(train)


def test_every_query_has_a_positive_from_another_camera(root):
    gallery = parse(root, "bounding_box_test")
    for pid, camera in parse(root, "query"):
        assert any(p == pid and c != camera for p, c in gallery)


def test_images_are_market_crops(root):
    for folder in ("bounding_box_train", "bounding_box_test", "query"):
        for path in (root / folder).iterdir():
            with Image.open(path) as image:
                image.load()
                assert (image.format, image.size, image.mode) == ("JPEG", (64, 128), "RGB")
                assert np.asarray(image).std() > 4  # not blank


def test_same_settings_same_bytes_other_seed_other_images(root, tmp_path):
    write_synthetic(tmp_path / "again", SMALL)
    write_synthetic(tmp_path / "other", replace(SMALL, seed=1))
    again, other = read(tmp_path / "again"), read(tmp_path / "other")
    assert again == read(root)
    assert not set(again.values()) & set(other.values())


def test_more_of_everything_leaves_the_rest_as_it_was(root, tmp_path):
    more = Synthetic(train_identities=6, train_images=6, test_identities=5, gallery_images=3, distractors=8, junk=8)
    write_synthetic(tmp_path / "more", more)
    assert read(root).items() < read(tmp_path / "more").items()


def test_no_two_images_are_the_same(root):
    assert len(set(read(root).values())) == count_images(SMALL)


def test_an_interrupted_generation_leaves_nothing(tmp_path):
    def stop(n):
        done.append(n)
        if len(done) == 5:
            raise KeyboardInterrupt

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "data", SMALL, stop)
    assert list(tmp_path.iterdir()) == []


def test_root_appears_only_when_complete_and_progress_counts_images(tmp_path):
    steps = []

    def advance(n):
        assert not (tmp_path / "data").exists()
        steps.append(n)

    write_synthetic(tmp_path / "data", SMALL, advance)
    assert steps == [1] * count_images(SMALL)


def test_a_complete_root_is_left_as_it_is(root, monkeypatch):
    monkeypatch.setattr(generate, "render", lambda *args: pytest.fail("drawn again"))
    write_synthetic(root, SMALL)


def test_two_processes_may_make_the_same_data_set(root, tmp_path):
    quicker = iter([lambda: write_synthetic(tmp_path / "data", SMALL)])
    write_synthetic(tmp_path / "data", SMALL, lambda n: next(quicker, lambda: None)())
    assert read(tmp_path / "data") == read(root)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_root_with_other_images_is_refused(tmp_path):
    path = tmp_path / "query" / "0001_c1s1_000000_00.jpg"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"holds 1 images, not exactly the \d+ .* missing.* Delete"):
        write_synthetic(tmp_path, SMALL)
    assert read(tmp_path) == {"query/0001_c1s1_000000_00.jpg": b"mine"}


def test_a_root_with_one_image_too_many_is_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data" / "query" / "extra.jpg").touch()
    with pytest.raises(FileExistsError, match=r"query/extra\.jpg is not one of them"):
        write_synthetic(tmp_path / "data", SMALL)


def test_fingerprint_tells_settings_apart(monkeypatch):
    assert fingerprint(SMALL) == fingerprint(replace(SMALL))
    names = {
        fingerprint(replace(SMALL, **{field: value}))
        for field, value in {**vars(SMALL), "seed": 5, "alike": 0.25, "junk": 1}.items()
    }
    assert len(names) == 4  # the settings as they are, and three changes
    before = fingerprint(SMALL)
    monkeypatch.setattr(generate, "GENERATOR_VERSION", generate.GENERATOR_VERSION + 1)
    assert re.fullmatch(r"[0-9a-f]{12}", before)
    assert fingerprint(SMALL) != before


@pytest.mark.parametrize("seed", range(4))
def test_cameras_differ_in_mean_color(seed):
    rng = np.random.default_rng(seed)
    cameras, crowd = sample_cameras(rng), [sample_identity(rng) for _ in range(4)]
    # The same people in the same place, pose and light: what is left is what the camera does to colour.
    same = {"scene": cameras[0].scene, "yaw": 0.0, "elevation": 0.2, "lights": cameras[0].lights}
    means = [
        np.mean(
            [render(who, replace(camera, **same), np.random.default_rng(5), crowd) for who in crowd],
            (0, 1, 2),
        )
        for camera in cameras
    ]
    # Grey levels, each over some 8000 pixels a channel: the cameras' noise (8 at most) is 0.1 in the mean.
    assert all(np.linalg.norm(a - b) > 2 for a, b in combinations(means, 2))
    assert np.median([np.linalg.norm(a - b) for a, b in combinations(means, 2)]) > 10


def test_render_shows_the_person_in_the_middle_or_not_at_all():
    rng = np.random.default_rng(0)
    camera, crowd = sample_cameras(rng)[0], [sample_identity(rng) for _ in range(20)]

    def shown(who, framing, seed):
        """Where the image with somebody differs from the same one with nobody."""
        images = [render(w, camera, np.random.default_rng(seed), crowd, framing).astype(int) for w in (who, None)]
        return np.abs(images[0] - images[1]).max(-1) > 12  # more than blur spreads

    good, bad = (np.mean([shown(who, framing, i) for i, who in enumerate(crowd)], 0) for framing in ("good", "bad"))
    middle = np.s_[24:104, 24:40]
    assert good[middle].mean() > 0.7
    assert bad[middle].mean() < 0.4
    assert good[:, :8].mean() < 0.1


def outfit(who):
    return np.array([who.top, who.accent, who.lower_color, who.shoes, who.bag_color], float)


def test_share_of_lookalikes_is_the_one_asked_for():
    for alike in (0.0, 0.5, 1.0):
        groups = cast(0, "train", 400, alike)
        assert sum(map(len, groups)) == 400
        assert {len(group) for group in groups} <= {1, 2, 3, 4}
        share = sum(len(group) for group in groups if len(group) > 1) / 400
        assert share == pytest.approx(alike, abs=0.01)  # a group of four is 1 %


def test_lookalikes_are_closer_in_color_than_strangers_but_not_the_same():
    groups = cast(3, "test", 200, 0.5)
    near = [(a, b) for group in groups for a, b in combinations(group, 2)]
    far = list(pairwise(group[0] for group in groups))
    distance = {
        name: np.array([np.abs(outfit(a) - outfit(b)).mean() for a, b in pairs])
        for name, pairs in (("near", near), ("far", far))
    }
    assert np.median(distance["near"]) < 0.5 * np.median(distance["far"])
    assert all(a != b for a, b in near)


def test_contact_sheet_is_a_grid():
    images = [np.full((4, 3, 3), i, np.uint8) for i in range(5)]
    sheet = contact_sheet(images, columns=2)
    assert sheet.shape == (3 * 4 + 2 * 2, 2 * 3 + 2, 3)
    assert sheet.dtype == np.uint8
    for i, image in enumerate(images):
        y, x = 6 * (i // 2), 5 * (i % 2)
        np.testing.assert_array_equal(sheet[y : y + 4, x : x + 3], image)
    assert (sheet == 255).sum() == 3 * (16 * 8 - 5 * 12)
