"""The tiny preset with one short round, for what a run of any length shows: most of its time is compilation."""

from dataclasses import replace

OPTIONS = (
    *("--base.steps", "8", "--base.milestones", "4", "--rri.rounds", "1"),
    *("--rri.restraint.steps", "4", "--rri.relaxation.steps", "4", "--log-every", "2", "--checkpoint-every", "4"),
)
"""Its log has 14 lines; the seventh, about W, comes after two checkpoints."""


def of(config):
    """The same of settings."""
    rri = config.rri
    parts = {name: replace(getattr(rri, name), steps=4) for name in ("restraint", "relaxation")}
    base = replace(config.base, steps=8, milestones=(4,))
    return replace(config, base=base, rri=replace(rri, rounds=1, **parts), log_every=2, checkpoint_every=4)
