"""Writes the network of a run to a file that needs nothing of this package.

    svdnet export --run runs/synthetic --out net.onnx        for ONNX Runtime and others, without JAX
    svdnet export --run runs/synthetic --out net.stablehlo   for jax.export, on cpu, cuda or tpu

In: images in uint8 (N, height, width, 3), RGB, of any number and any one size. Resizing to the size of the run, as in
training, and normalization are inside. Out: features (N, D) in float32. The file is read back and compared with the run
on images of its data set: the largest difference of any feature, rank-1 and mAP by both, and the time of 1 and of 64
images. What differs by more than rounding is not written. docs/export.md has the ten lines that embed a folder of
images from net.onnx. Needs pip install 'svdnet-jax[export]'. A ResNet-50 takes about two minutes on two CPU cores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import tyro
from rich.console import Console

from svdnet_jax.cli.exits import explain, fail, fail_on
from svdnet_jax.cli.source import Source, with_source
from svdnet_jax.errors import ConfigError, MachineError
from svdnet_jax.reporting.terminal import say, terminal
from svdnet_jax.safe_writing import Recognize, refuse_overwrite, whole_file

if TYPE_CHECKING:
    from svdnet_jax.export.check import Apply, Comparison
    from svdnet_jax.export.network import Network


@dataclass(frozen=True)
class Options:
    """What to export, and on what to check it."""

    run: Path
    """Folder of a run: the network of its latest checkpoint."""
    out: Path
    """File to write, .onnx or .stablehlo. An older one is replaced; any other file stays, and the command stops."""
    kind: Literal["embedding", "pooled"] = "embedding"
    """The Eigenlayer's output or its input."""
    queries: int = 64
    """Query images to check it with, beside four times as many gallery images."""
    data: Source = field(default_factory=Source)


class Format(NamedTuple):
    """A kind of file."""

    name: str
    packages: tuple[str, ...]
    made: Recognize
    write: "Callable[[Network], bytes]"
    load: "Callable[[Path], Apply]"
    runtime: Callable[[], str]
    """What reads it here."""


def main(argv: Sequence[str] | None = None, prog: str = "svdnet export") -> int:
    """Runs the command line; 0 if all went well, 2 for input that cannot be used, 3 for the machine."""
    options = tyro.cli(Options, args=argv, prog=prog, description=__doc__)
    try:
        _export(options, terminal())
    except (OSError, ValueError, MemoryError) as error:
        return fail_on(error)
    except MachineError as error:
        return fail(explain(error), 3)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    return 0


def _export(options: Options, console: Console) -> None:
    # Flax and all that belongs to training, which --help can do without.
    import numpy as np

    from svdnet_jax.config.schema import input_size
    from svdnet_jax.export import check
    from svdnet_jax.export.network import Network, check_installed
    from svdnet_jax.runs.inference import load_eval_dataset
    from svdnet_jax.runs.load import finished_note, load_run
    from svdnet_jax.training.embedding import make_eval_fn
    from svdnet_jax.training.fingerprint import model_fingerprint

    if not 1 <= options.queries <= 10**6:
        raise ConfigError(f"--queries {options.queries}: must be from 1 to {10**6}")
    target = _format(options.out)
    refuse_overwrite("--out", options.out, target.made)
    check_installed(target.name, target.packages)
    trained = load_run(options.run)
    config = with_source(trained.config, options.data, replaced=options.data.root is not None)
    dataset = load_eval_dataset(config, console)
    size, variables = input_size(trained.config.data), trained.state.variables
    fingerprint = model_fingerprint(variables, options.kind, trained.config)
    network = Network(trained.model, variables, size, options.kind, fingerprint)
    infer = make_eval_fn(trained.model, size)

    def own(images: Any) -> Any:
        return getattr(infer(variables, images), options.kind)

    say(console, f"{options.run}, {finished_note(trained)}: converting, and comparing on {dataset.name}")
    query, gallery = check.choose(dataset, options.queries, config.eval.cross_camera)
    content = target.write(network)
    with whole_file(options.out) as file:  # it takes its place when it has passed the check
        file.write(content)
        file.flush()
        exported = target.load(Path(file.name))
        compared = check.compare(own, exported, query, gallery, config.eval, trained.config.model.dtype)
    say(console, f"{options.out}: {target.name}, {len(content) / 1e6:.1f} MB, model {fingerprint}")
    say(console, _as_text(compared, target.runtime()))
    for batch in check.BATCHES:
        images = gallery.images[np.arange(batch) % len(gallery)]
        theirs, ours = (1e3 * check.seconds(apply, images) for apply in (exported, own))
        what = "1 image" if batch == 1 else f"{batch} images"
        say(console, f"  {what:9} in {theirs:.1f} ms, by the run's own program in {ours:.1f} ms")


def _as_text(compared: "Comparison", runtime: str) -> str:
    own, exported = compared.own, compared.exported
    measures = [("rank-1", own.rank(1), exported.rank(1)), ("mAP", own.mAP, exported.mAP)]
    changes = [
        f"{name} {100 * before:.2f} becomes {100 * after:.2f} ({100 * (after - before):+.2f})"
        for name, before, after in measures
    ]
    return "\n".join(
        [
            f"read back in {runtime} and compared with the run on {compared.queries} query and {compared.gallery} "
            "gallery images:",
            f"  largest difference of a feature {compared.difference:.2g}; images differ from their mean by up to "
            f"{compared.spread:.2g}",
            f"  {', '.join(changes)}; per cent, on these images alone",
        ]
    )


def _format(out: Path) -> Format:
    """Returns the kind of file that a name asks for.

    Raises:
        ConfigError: The name ends in none that is known.
    """
    import jax

    from svdnet_jax.export import onnx_file, stablehlo

    formats = {
        ".onnx": Format(
            "ONNX", onnx_file.PACKAGES, onnx_file.is_onnx, onnx_file.to_onnx, onnx_file.load_onnx, onnx_file.runtime
        ),
        ".stablehlo": Format(
            f"StableHLO for {', '.join(stablehlo.PLATFORMS)}",
            stablehlo.PACKAGES,
            stablehlo.is_stablehlo,
            stablehlo.to_stablehlo,
            stablehlo.load_stablehlo,
            lambda: f"jax {jax.__version__} on {jax.default_backend()}",
        ),
    }
    if out.suffix not in formats:
        raise ConfigError(f"--out {out}: the name says the kind of file; end it in {' or '.join(formats)}")
    return formats[out.suffix]
