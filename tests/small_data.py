"""Data sets of a few drawn images, in the layouts that real ones have."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from svdnet_jax.data.formats.market_style import FOLDERS

SIZE = (16, 8)


def write(path, color=(200, 30, 40), size=(8, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_truncated(path):
    """An image whose header is whole and whose last pixels are not there."""
    noise = np.random.default_rng(0).integers(0, 255, (16, 8, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:-100])


def write_market(root):
    for pid in (2, 7):
        for camera in (1, 2):
            write(root / "bounding_box_train" / f"{pid:04d}_c{camera}s1_000001_01.jpg", (pid * 20, camera * 60, 0))
    write(root / "query" / "0001_c1s1_000001_00.jpg", (1, 2, 3))
    write(root / "bounding_box_test" / "0001_c2s1_000009_01.jpg", (40, 2, 3))
    write(root / "bounding_box_test" / "0000_c3s2_000009_01.jpg", (80, 2, 3))
    write(root / "bounding_box_test" / "-1_c3s2_000010_02.jpg.jpg", (120, 2, 3))
    for folder in FOLDERS.values():
        (root / folder / "Thumbs.db").write_bytes(b"Windows was here")
        (root / folder / "._0001_c1s1_000001_00.jpg").write_bytes(b"macOS was here")
    return root


def shelved_market(tmp_path):
    """For a fixture: Market-1501 in a folder that holds nothing else."""
    return write_market(tmp_path / "shelf" / "Market-1501-v15.09.15")


def cache_folder(tmp_path):
    """For a fixture: a cache that is not there yet."""
    return tmp_path / "cache"


def write_duke(root):
    write(root / "bounding_box_train" / "0001_c2_f0046182.jpg", (1, 1, 1))
    write(root / "bounding_box_train" / "0005_c8_f0046302.jpg", (50, 1, 1))
    write(root / "query" / "0007_c2_f0046182.jpg", (100, 1, 1))
    write(root / "bounding_box_test" / "0007_c5_f0056182.jpg", (150, 1, 1))
    return root


def write_msmt17(root, folders=("train", "test")):
    """Identities are numbered from 0 in training and again in testing."""
    lists = {
        "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_05_0303noon_0020_0.jpg 1"],
        "val": ["0001/0001_001_14_0303noon_0020_1_ex.jpg 1"],
        "query": ["0000/0000_000_02_0113morning_0015_0.jpg 0", "0001/0001_000_02_0113morning_0019_1.jpg 1"],
        "gallery": ["0000/0000_001_15_0113morning_0015_1.jpg 0", "0001/0001_001_03_0113morning_0022_0.jpg 1"],
    }
    for shade, (name, lines) in enumerate(lists.items()):
        (root / folders[name in ("query", "gallery")]).mkdir(parents=True, exist_ok=True)
        (root / f"list_{name}.txt").write_text("".join(line + "\n" for line in lines))
        for n, line in enumerate(lines):
            write(root / folders[name in ("query", "gallery")] / line.split()[0], (shade * 50, n * 90, 9))
    return root


# Camera pair 1 has two people, camera pair 2 one, whom training gets; names are pair_person_view_picture.
CUHK03 = ("1_001_1_01.png", "1_001_1_03.png", "1_001_2_06.png", "1_002_1_01.png", "1_002_2_06.png", "2_001_1_02.png")


def cuhk03_color(name):
    pair, person, view, picture = (int(part) for part in name.removesuffix(".png").split("_"))
    return (pair * 100, person * 50 + view * 25, picture * 20)


def write_cuhk03_config(root, kind="labeled"):
    root.mkdir(parents=True, exist_ok=True)
    names = np.empty((len(CUHK03), 1), object)
    names[:, 0] = CUHK03
    columns = {
        "filelist": names,
        "labels": [1, 1, 1, 2, 2, 844],
        "camId": [1, 1, 2, 1, 2, 1],
        "train_idx": [4, 5, 6],
        "query_idx": [1, 3],
        "gallery_idx": [2],
    }
    table = {
        name: values if name == "filelist" else np.array(values, np.uint16)[:, None] for name, values in columns.items()
    }
    savemat(root / f"cuhk03_new_protocol_config_{kind}.mat", table)


def write_cuhk03_images(root, kind="labeled"):
    for name in CUHK03:
        write(root / f"images_{kind}" / name, cuhk03_color(name))


def write_cuhk03_mat(path, kind="labeled"):
    """A file as Matlab 7.3 writes it: cells are references, arrays are transposed, an empty cell holds its size."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        empty = file.create_dataset("#refs#/empty", data=np.zeros(2, np.uint64))
        pairs = []
        for pair, people in ((1, 2), (2, 1)):
            cells = np.full((10, people), empty.ref, h5py.ref_dtype)
            for name in CUHK03:
                p, person, _, picture = (int(part) for part in name.removesuffix(".png").split("_"))
                if p == pair:
                    pixels = np.full((16, 8, 3), cuhk03_color(name), np.uint8)
                    pixels[:2] = 255  # a white top: height and width must not be swapped
                    data = file.create_dataset(f"#refs#/{name}", data=pixels.T)
                    cells[picture - 1, person - 1] = data.ref
            pairs.append(file.create_dataset(f"#refs#/pair{pair}", data=cells, dtype=h5py.ref_dtype).ref)
        file.create_dataset(kind, data=np.array([pairs], h5py.ref_dtype), dtype=h5py.ref_dtype)


def write_cuhk03_cropped(root, kind="labeled"):
    write(root / kind / "bounding_box_train" / "0001_c1_1.png", (1, 1, 1))
    write(root / kind / "bounding_box_train" / "0003_c2_21.png", (50, 1, 1))
    write(root / kind / "query" / "0002_c1_9.png", (100, 1, 1))
    write(root / kind / "bounding_box_test" / "0002_c2_14.png", (150, 1, 1))


def write_manifest(root, text, images=("a.jpg", "b.jpg", "c.jpg", "d.jpg"), name="manifest.csv"):
    for n, image in enumerate(images):
        write(root / image, (n * 40, 7, 7))
    (root / name).write_text(text)
    return root


def copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.parent / name))
