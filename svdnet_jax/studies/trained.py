"""The runs of a study: where each lies, which are finished, how long the others will take, and training one of them."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from rich.console import Console

from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import diff, to_json
from svdnet_jax.reporting.log import after_rounds, read_log
from svdnet_jax.reporting.terminal import duration, say, terminal
from svdnet_jax.runs.base_run import without_rounds
from svdnet_jax.runs.directory import RunDir, read_settings, refuse_other_settings
from svdnet_jax.runs.training import train as train_run
from svdnet_jax.training.schedule import build_schedule


@dataclass(frozen=True)
class Plan:
    """Runs that are to be trained, by several processes maybe."""

    runs: Mapping[Path, tuple[Config, int]]
    """Folder -> settings and steps of its own, each once; Step 0 is a run of its own."""
    begun: float = field(default_factory=time.time)

    def __str__(self) -> str:
        done = [folder for folder, (config, _) in self.runs.items() if finished(config)]
        told = f"{len(done)} of {len(self.runs)} runs"
        if not done:
            return f"{told} trained; how long they take is told with the first"
        trained, all_steps = sum(self.runs[folder][1] for folder in done), sum(steps for _, steps in self.runs.values())
        seconds = (time.time() - self.begun) * (all_steps - trained) / trained
        return f"{told}, {duration(seconds)} left" if trained < all_steps else told


def plan(folder: Path, variants: Mapping[str, Config], seeds: Iterable[int]) -> Plan:
    """Returns what is not trained yet of some variants with some seeds.

    Args:
        folder: Of the study.
        variants: Settings by name.
        seeds: Of the runs.

    Raises:
        ConfigError: The folder of a run holds one with other settings.
    """
    needed = [run for seed in seeds for name, config in variants.items() for run in runs(folder, name, config, seed)]
    steps = {each.folder: build_schedule(each)[-1].end - (each.base.steps if each.base_from else 0) for each in needed}
    return Plan({each.folder: (each, steps[each.folder]) for each in needed if not finished(each)})


def runs(folder: Path, name: str, config: Config, seed: int) -> list[Config]:
    """Returns the settings of the Step 0 of a variant and, where it has rounds, of the run that goes on from there.

    Args:
        folder: Of the study. Step 0 lies there once for each seed and all settings that it depends on.
        name: Of the variant.
        config: Of the variant.
        seed: Of the run.
    """
    config = replace(config, seed=seed, base_from=None, rri=replace(config.rri, stop="never"))
    base = without_rounds(config)
    base = replace(base, out=folder / f"base-{_digest(base)}-{seed}")
    return [base, replace(config, base_from=base.folder, out=folder / f"{name}-{seed}")][: 1 + bool(config.rri.rounds)]


def trained(folder: Path, name: str, config: Config, seed: int, console: Console, among: Plan | None = None) -> Path:
    """Returns the folder of a finished run, which is trained if it is not there.

    Args:
        folder: Of the study.
        name: Of the variant.
        config: Of the variant.
        seed: Of the run.
        console: Where to tell it.
        among: The runs of which it is one.

    Raises:
        ConfigError: The folder holds a run with other settings.
        TrainingDiverged: The loss is no number any more.
    """
    needed = runs(folder, name, config, seed)
    if not finished(needed[-1]):
        for each in needed:
            if not finished(each):
                _finish(each, console, among)
    return needed[-1].folder


def finished(config: Config) -> bool:
    """Returns whether nothing is left of a run.

    Raises:
        ConfigError: Its folder holds a run with other settings.
    """
    run_dir = RunDir(config.folder)
    log = run_dir.log
    if run_dir.has_checkpoint:
        refuse_other_settings(run_dir, read_settings(run_dir), to_json(config))
    # A log that a killed process has cut short is put right by the run that goes on.
    if not log.exists() or not (text := log.read_text("utf-8", "replace")).endswith("\n"):
        return False
    return text.rpartition('\n{"event": ')[2].startswith('"end"')


def _finish(config: Config, console: Console, among: Plan | None) -> None:
    """Runs what is left of a run; shown where somebody watches, else told in a line when it is over."""
    folder, log = config.folder, RunDir(config.folder).log
    train_run(config, console if console.is_terminal else terminal(quiet=True), report=False)
    last, end = after_rounds(records := read_log(log))[-1], records[-1]
    result = f"rank-1 {100 * last['embedding']['rank1']:.1f} mAP {100 * last['embedding']['mAP']:.1f}"
    far = f"; {among}" if among else ""
    say(console, f"{folder}: {end['step']} steps, {duration(end['seconds'])} of training, {result}{far}")


def _digest(config: Config) -> str:
    """Returns a few letters that differ between settings, and that a new option leaves as they were."""
    others = ("out", "seed", "preset", "compute", "machines", "log.")
    changed = [each for each in diff(to_json(Config()), to_json(config)) if not each.startswith(others)]
    return sha256("\n".join(changed).encode()).hexdigest()[:6]
