"""Every exception of the package.

Messages are for people: what was found, what was expected, how to mend it.
"""


class ConfigError(ValueError):
    """A setting that cannot work; the message names the option, the value and what would be valid."""


class WeightsError(ConfigError):
    """Weights that cannot be read or do not fit; the message names the file, what is wrong and how to mend it."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be read, or whose numbers are not those that were saved."""

    def __init__(self, step: int | None, message: str) -> None:
        super().__init__(message)
        self.step = step
        """Its step; None if it is not known which one it is."""


class DataError(ValueError):
    """Data that cannot be used; the message names the file or folder, what was found and what was expected."""


class FeatureError(ValueError):
    """Features that cannot be ranked: not finite, without direction, or out of range; the message names the first."""


class LogError(ValueError):
    """A line that cannot be written or read; the message names file and place."""


class MachineError(Exception):
    """Something that the machine lacks or lost, such as room on a disk; the message says where, and what is intact."""


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite; the message says when and what to try."""


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop has done so, and can go on from the step that the message names."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(f"stopped after step {step}, which is saved; the same command goes on from there")
        self.signal = number
        """The signal that asked for it."""
