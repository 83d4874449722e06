"""Arrays of Matlab files (.mat, version 5 to 7), read in a process of their own.

SciPy's reader can crash on a damaged file, and a small file can unfold to gigabytes: neither reaches who asked. What
the process read comes back as an `.npz`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from svdnet_jax.arrays import RATIO, UNFOLDED, read_arrays

MOST_SECONDS = 60
"""To read a file; one of a gigabyte takes a few."""
STARTED = 2**32
"""Bytes of address space that the process may have before it reads anything: Python, NumPy and their threads."""
_READ = """
import sys
import numpy as np
from scipy.io import loadmat
path, out, room, started, *names = sys.argv[1:]
try:
    import resource
    most = int(started) + 4 * int(room)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
except (ImportError, ValueError, OSError):
    pass  # not on this system
table = loadmat(path, variable_names=names)
def plain(array):
    return np.array([str(cell[0]) for cell in array.ravel()], str) if array.dtype.kind == "O" else array
arrays = {name: plain(table[name]) for name in names if name in table}
if (unfolded := sum(array.nbytes for array in arrays.values())) > int(room):
    sys.exit(f"it unfolds to {unfolded} bytes, and a file of its size to {room} at most")
np.savez(out, **arrays)
"""


def read_matlab(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns those of the named arrays that a file holds, as Matlab has them: nothing has fewer than two dimensions.

    Args:
        path: The file.
        names: Of arrays of numbers or text, or of cells that hold a text each, which come as one array of text.

    Raises:
        OSError: The file is missing.
        ValueError: It is no Matlab file, is damaged, or is of version 7.3, which is HDF5.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("is not an ordinary file; give the name of one")
    room = max(RATIO * size, UNFOLDED)
    with tempfile.TemporaryDirectory(prefix="svdnet-") as folder:
        out = Path(folder) / "arrays.npz"
        try:
            ended = subprocess.run(  # noqa: S603 - our own program, and the file is an argument of it
                [sys.executable, "-c", _READ, str(path), str(out), str(room), str(STARTED), *names],
                capture_output=True,
                text=True,
                check=False,
                timeout=MOST_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"its reader took more than {MOST_SECONDS} s") from error
        if ended.returncode:
            raise ValueError((ended.stderr.strip().splitlines() or ["its reader crashed"])[-1])
        return read_arrays(out, names, "arrays")
