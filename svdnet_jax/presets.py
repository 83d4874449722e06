"""Named settings to start from, as Python values."""

from collections.abc import Mapping
from types import MappingProxyType

from svdnet_jax.config import RRI, Data, Phase, Run, Synthetic

PRESETS: Mapping[str, Run] = MappingProxyType(
    {
        "synthetic": Run(),
        # The whole loop in under a minute, to see that everything works; its numbers mean nothing.
        "tiny": Run(
            preset="tiny",
            log_every=4,
            checkpoint_every=8,
            data=Data(
                batch_size=32,
                height=32,
                width=16,
                synthetic=Synthetic(train_identities=12, train_images=8, test_identities=8, distractors=6, junk=4),
            ),
            base=Phase(steps=24, milestones=(16,)),
            rri=RRI(
                rounds=2,
                restraint=Phase(steps=8, freeze=("eigenlayer/*",)),
                relaxation=Phase(steps=8),
                stop="never",
            ),
        ),
    }
)
