"""What one run can show and what it cannot, with intervals: the lines at its end."""

from collections.abc import Mapping, Sequence
from math import isnan

from svdnet_jax.config.schema import RRI
from svdnet_jax.reporting.log import Record, after_rounds, on_held_out
from svdnet_jax.retrieval.intervals import ByIdentity, Interval, caution
from svdnet_jax.runs.directory import RunDir, load_identities

NAMES = {"embedding": "the Eigenlayer's output", "pooled": "its input"}


def conclusion(run_dir: RunDir, rri: RRI, records: Sequence[Record]) -> str:
    """Returns what the numbers of a finished run rest on, and how to get its control; empty where that is not known.

    Args:
        run_dir: The folder of the run.
        rri: Its settings.
        records: Its log.

    Raises:
        ConfigError: The results by identity are damaged.
    """
    first, last = after_rounds(records)[0], after_rounds(records)[-1]
    before, after = (load_identities(run_dir, record["round"], record["phase"]) for record in (first, last))
    if not before or not after:
        return ""
    rounds = [_gain(before, after), _missing(rri)] if last["round"] else []
    return "\n".join([_absolute(after, "held out" if on_held_out(records) else "of the test set"), *rounds])


def _absolute(after: Mapping[str, ByIdentity], of: str) -> str:
    people = len(after["embedding"].pids)
    if people < 2:
        return f"One person {of} says nothing of others: there is no interval over people."
    numbers = [
        f"{title} {_range(after['embedding'].interval(measure))}"
        for measure, title in {"rank1": "rank-1", "mAP": "mAP"}.items()
    ]
    doubt = f" ({caution(people)})" if caution(people) else ""
    return f"By {NAMES['embedding']}, 95 % intervals over the {people} people {of}{doubt}: {', '.join(numbers)}."


def _gain(before: Mapping[str, ByIdentity], after: Mapping[str, ByIdentity]) -> str:
    gains = [f"{_range((after[name] - before[name]).interval('mAP'), '+')} by {title}" for name, title in NAMES.items()]
    return f"Since Step 0 mAP changed by {', '.join(gains)}."


def _missing(rri: RRI) -> str:
    if rri.method == "none":
        return "This is a control: what it gained is what training longer gains, with this seed."
    return (
        "This does not show what the decorrelation did: part of the change is that of training longer, and another "
        "seed or another CPU gives other numbers. The control is the same command with `rri.method` none and another "
        "`out`; svdnet compare shows both, and svdnet study control several seeds of them."
    )


def _range(interval: Interval, sign: str = "") -> str:
    value, low, high = (f"{100 * end:{sign}.1f}" for end in interval)
    return value if isnan(interval.low) else f"{value} [{low}, {high}]"
