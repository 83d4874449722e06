"""What people of other toolkits type, and what to type here."""

from collections.abc import Sequence

from svdnet_jax.config.schema import Data


def hint_of(arguments: Sequence[str], data: Data) -> str | None:
    """Returns what to type in place of the first option that belongs to another toolkit; None if there is none.

    Args:
        arguments: Of the command line.
        data: The settings that they change.
    """
    batch = data.batch_size
    hints = {
        "--lr": "--optimizer.learning-rate for Step 0, --rri.learning-rates for the rounds",
        "--epochs": "--base.steps, --rri.restraint.steps and --rri.relaxation.steps. Training is counted in steps: "
        f"epochs x training images / batch size ({batch})",
        "--resume": "the same command again: it goes on from the latest checkpoint of its folder",
        "--batch": "--data.batch-size",
        "--batch-size": "--data.batch-size, or --eval.batch-size for embedding",
        "--gpus": "nothing: all devices are used; --parallel single takes the first of those that "
        "CUDA_VISIBLE_DEVICES lists",
        "--config": "--preset NAME and options over it; a run keeps its settings in config.json",
        "--save-dir": "--out",
        "--height": "--data.height and --data.width",
        "--width": "--data.height and --data.width",
        "--sources": "--data.root for the first data set, which is tested on, and --data.more for others",
        "--combineall": "--data.combine-all, for the data sets in --data.more",
        "--eval-only": "svdnet evaluate --run FOLDER [--data.root DATA] in place of svdnet train",
        "--weights": "--model.weights",
    }
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name in hints:
            return f"{name} is no option here; give {hints[name]}"
    return None
