"""The short help of `svdnet train`: what people use most, on two screens. tyro prints the rest (--help-all)."""

from typing import Any

from svdnet_jax.config.presets import PRESETS
from svdnet_jax.config.schema import Config

OPTIONS = {
    "Data": {
        "data.root": "folder of a data set, or a CSV manifest; not given: the built-in pedestrians",
        "data.more": "further data sets to train on, tested by their names",
        "data.validation": "so many training identities held out as query and gallery, to choose settings",
        "data.height": "height the network sees, in pixels",
        "data.width": "width the network sees, in pixels",
        "data.batch_size": "images of a step",
        "data.num_instances": "images of each identity in a batch (PK sampling); 0: any",
        "data.erase_prob": "share of images with random erasing",
    },
    "Network": {
        "model.backbone": "mini, resnet18, 34, 50, 101, 50_ibn_a, caffenet, osnet_x1_0 to osnet_x0_25",
        "model.weights": "file, hf:owner/name, or the folder of a run; not given: random",
        "model.embedding_dim": "outputs of the Eigenlayer; 0: none, a baseline",
        "loss.triplet": "none, soft or margin",
    },
    "Step 0": {
        "base.steps": "optimizer steps",
        "base.milestones": "steps after which the learning rate is a tenth",
        "optimizer.learning_rate": "at the first step",
    },
    "Rounds": {
        "rri.rounds": "rounds of restraint and relaxation; 0: Step 0 only",
        "rri.method": "us, the paper's; u, uvt, qd; none: the control; rotation: a random one",
        "rri.learning_rates": "of each round; the last one stays",
        "rri.restraint.steps": "steps with W fixed",
        "rri.relaxation.steps": "steps with all weights",
        "rri.stop": "stable: until S(W) is; never: all rounds",
        "base_from": "folder of a run without rounds, whose Step 0 is taken over",
    },
    "Run": {
        "out": "folder; not given: runs/ and the name of data or preset",
        "seed": "of weights, order, flips, dropout",
        "log_every": "steps between two lines of the log",
        "checkpoint_every": "steps between two checkpoints; Ctrl-C saves one too",
        "parallel": "auto: all devices; pmap; single",
    },
}
"""Settings by their names, and what they are; grouped for people."""


def short_help(prog: str, preset: Config) -> str:
    """Returns the text of --help.

    Args:
        prog: The command.
        preset: Whose values are shown.
    """
    lines = [
        f"usage: {prog} [--preset NAME] [OPTION VALUE ...]",
        "",
        "Trains SVDNet: Step 0, then rounds that replace the Eigenlayer's W by U S, train the rest (restraint)",
        "and train everything (relaxation). Leaves log, checkpoints, figures, embeddings and report.html in a",
        "folder. The same command again goes on where it was stopped.",
        "",
        f"  {prog}                                          built-in pedestrians, three minutes on two CPU cores",
        f"  {prog} --data.root Market-1501-v15.09.15        a data set, or a CSV file, by the small network",
        f"  {prog} --preset short-resnet50 --data.root ... --model.weights resnet50.h5",
        f"  {prog} --rri.method none --out runs/control     the control: as long, without decorrelation",
        f"  {prog} --preset tiny --out runs/tiny            the whole loop in a minute",
        "",
        "Presets (docs/recipes.md says how each differs from what was published):",
        *_wrapped(PRESETS),
        "",
        f"Options, with their values in preset {preset.preset}:",
    ]
    for title, options in OPTIONS.items():
        lines += ["", f"{title}"]
        lines += [f"  --{_option(name):27} {text} ({_value(preset, name)})" for name, text in options.items()]
    lines += [
        "",
        f"{prog} --help-all shows every option. Messages name an option, what was found and what is expected.",
    ]
    return "\n".join(lines)


def _option(name: str) -> str:
    return name.replace("_", "-")


def _value(preset: Config, name: str) -> str:
    value: Any = preset
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "not given" if value is None else str(value)


def _wrapped(names: Any) -> list[str]:
    return ["  " + ", ".join(names)]
