"""The tiny preset with one short round, for what a run of any length shows: most of its time is compilation."""

OPTIONS = (
    *("--base.steps", "8", "--base.milestones", "4", "--rri.rounds", "1"),
    *("--rri.restraint.steps", "4", "--rri.relaxation.steps", "4", "--log-every", "2", "--checkpoint-every", "4"),
)
"""Its log has 14 lines; the seventh, about W, comes after two checkpoints."""
