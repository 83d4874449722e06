"""The `start` and `end` lines of a run's log, and the facts of its report."""

from collections.abc import Sequence
from typing import Any

import jax

from svdnet_jax.config.schema import RRI, Config
from svdnet_jax.config.serialize import to_json
from svdnet_jax.data.types import Dataset, labels
from svdnet_jax.models.pretrained.load import Pretrained
from svdnet_jax.runs.dataset import count_valid, summary
from svdnet_jax.training.events import Record
from svdnet_jax.training.state import TrainState


def start_record(config: Config, dataset: Dataset, data: str, state: TrainState, weights: Pretrained | None) -> Record:
    """Returns the first line: what is trained, from what, on what, and what a control must share with it."""
    return {
        "event": "start",
        "dataset": dataset.name,
        "fingerprint": data,
        "preset": config.preset,
        "method": config.rri.method,
        "weights": weights.source if weights else "random",
        "settings": _compared(config),
        "seed": config.seed,
        "identities": labels(dataset.train.pids)[1],
        "train": len(dataset.train),
        "query": len(dataset.query),
        "valid_queries": count_valid(dataset, config.eval),
        "gallery": len(dataset.gallery),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }


def _compared(config: Config) -> dict[str, Any]:
    """Returns the settings that a run and its control must share beside steps and rates."""
    settings = {name: to_json(config)[name] for name in ("data", "model", "loss", "optimizer", "eval")}
    for section, place in (
        ("data", "root"),
        ("data", "more"),
        ("data", "cache"),
        ("data", "layout"),
        ("data", "outside"),
        ("model", "weights"),
    ):
        del settings[section][place]
    # Of the Eigenlayer the record's `weights` speak.
    del settings["model"]["remat"], settings["model"]["keep_eigenlayer"]
    return settings


def end_record(rri: RRI, records: Sequence[Record], step: int) -> Record:
    """Returns the last line: why the run stopped, and the time that training took."""
    ended = [record for record in records if record["event"] == "phase"]
    early = ended[-1]["round"] < rri.rounds
    return {
        "event": "end",
        "step": step,
        "stopped": "stable" if early else "maximum",
        "seconds": sum(record["seconds"] for record in ended),
    }


def _tests(dataset: Dataset) -> str:
    """Returns which test sets a run on several data sets has."""
    others = ", ".join(other.name for other in dataset.others) or "no others"
    return f"the test set of {dataset.name.partition(' + ')[0]}, whose numbers are those of the run; also: {others}"


def report_facts(config: Config, dataset: Dataset, start: Record) -> dict[str, str]:
    """Returns what a reader must know to judge the numbers of the report."""
    chosen_on = "held-out training identities" if config.data.validation else "the test set"
    facts = {}
    if not config.model.embedding_dim:
        facts["Eigenlayer"] = "none: S(W), Gram matrix and singular values are of the classifier's weight"
    method = {
        "none": "none: this is a control run, the same training without decorrelation",
        "rotation": "W R, R random and orthogonal: this is a control run, the same shock without decorrelation",
    }
    return facts | {
        "Data": dataset.name + ("" if config.data.root else ", built in: drawn, not photographed"),
        **({"Tested on": _tests(dataset)} if config.data.more and not config.data.validation else {}),
        "Size": summary(dataset, count_valid(dataset, config.eval)).removeprefix(f"{dataset.name}: "),
        "Backbone": f"{config.model.backbone}, started from {start['weights']} weights",
        "Replacement of W": method.get(config.rri.method, config.rri.method.upper())
        if config.rri.rounds
        else "none: a run without rounds",
        "Protocol": f"{config.eval.metric} distance, "
        + ("same-camera images of the query's identity left out" if config.eval.cross_camera else "all cameras"),
        "Selection": "the numbers are those of the last phase of a fixed schedule; the checkpoint kept as best is "
        f"chosen by mAP on {chosen_on} and is not reported",
    }
