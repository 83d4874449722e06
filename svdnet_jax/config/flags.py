"""How the command line is made from dataclasses by tyro."""

from typing import Annotated

import tyro

TYRO_FLAGS = (tyro.conf.AvoidSubcommands,)
"""An optional section, such as the final restraint, is there with its options if the preset has it; no subcommands."""
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value, and without a form that negates it."""
