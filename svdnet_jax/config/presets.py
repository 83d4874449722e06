"""Named settings to start from, as Python values. `docs/recipes.md` lists how they differ from what was published."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from svdnet_jax.config.schema import RRI, Config, Data, Eval, Loss, Model, Optimizer, Phase, Synthetic

# The whole loop in under a minute, to see that everything works; its numbers mean nothing.
_TINY = Config(
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
)

# The authors' release, SVDNet/resnet: solver_*.prototxt, *_resnet*.prototxt, base_lr.txt and train_RRI.sh.
_FASTER_BIAS = (("classifier/bias", 2.0),)
_PAPER_RESNET50 = Config(
    preset="paper-resnet50",
    log_every=50,
    checkpoint_every=1000,
    data=Data(height=224, width=224, batch_size=32),
    model=Model(backbone="resnet50", embedding_dim=1024, batch_norm="frozen", mean_image=True),
    optimizer=Optimizer(learning_rate=1e-3, no_decay=("classifier/bias",)),
    base=Phase(steps=25_000, milestones=(10_000, 20_000), multipliers=_FASTER_BIAS),
    rri=RRI(
        rounds=7,
        learning_rates=(1e-3, 1e-3, 1e-3, 1e-4),
        restraint=Phase(steps=8_000, milestones=(5_000,), freeze=("eigenlayer/*",), multipliers=_FASTER_BIAS),
        relaxation=Phase(
            steps=8_000,
            milestones=(5_000,),
            freeze=("backbone/stem/*", "backbone/stage1_*", "backbone/*bn*"),
            multipliers=_FASTER_BIAS,
        ),
        stop="never",
    ),
)

# The authors' release, SVDNet/caffenet. The restraint trains fc6 at full rate, the other phases at half.
_FASTER_BIASES = (("*/bias", 2.0),)
_SLOWER_FC6 = (("backbone/fc6/kernel", 0.5), ("backbone/fc6/bias", 1.0), *_FASTER_BIASES)
_PAPER_CAFFENET = Config(
    preset="paper-caffenet",
    log_every=50,
    checkpoint_every=1000,
    data=Data(height=227, width=227, batch_size=128),
    model=Model(backbone="caffenet", embedding_dim=1024, eigenlayer_std=0.005, std=(1.0, 1.0, 1.0), mean_image=True),
    optimizer=Optimizer(learning_rate=1e-3),
    base=Phase(steps=15_000, milestones=(10_000,), multipliers=_SLOWER_FC6),
    rri=RRI(
        rounds=25,
        unmatched_rounds=6,
        learning_rates=(1e-3,),
        restraint=Phase(steps=2_000, freeze=("eigenlayer/*",), multipliers=_FASTER_BIASES),
        relaxation=Phase(steps=2_000, multipliers=_SLOWER_FC6),
        final=Phase(steps=6_000, milestones=(3_000,), freeze=("eigenlayer/*",), multipliers=_FASTER_BIASES),
        stop="never",
    ),
)

# The paper's network and recipe in a tenth of its steps: meant for ten minutes on a modern GPU, not yet measured.
_SHORT_RESNET50 = replace(
    _PAPER_RESNET50,
    preset="short-resnet50",
    base=replace(_PAPER_RESNET50.base, steps=4_000, milestones=(3_000,)),
    rri=replace(
        _PAPER_RESNET50.rri,
        rounds=3,
        learning_rates=(1e-3,),
        restraint=replace(_PAPER_RESNET50.rri.restraint, steps=1_500, milestones=(1_000,)),
        relaxation=replace(_PAPER_RESNET50.rri.relaxation, steps=1_500, milestones=(1_000,)),
    ),
)

# The same in small pictures, for two CPU cores: stem and first stage stay as ImageNet left them, as in the authors'
# relaxation. Step 0 in forty minutes, a round in ten. The rate of the rounds was chosen for US on 100 held-out
# identities of Market-1501, from 0.001, 0.003 and 0.01; for the control it is 0.001 (docs/results.md).
_LOW = ("backbone/stem/*", "backbone/bn_stem/*", "backbone/stage1_*")
_CPU_RESNET50 = replace(
    _SHORT_RESNET50,
    preset="cpu-resnet50",
    checkpoint_every=300,
    data=replace(_SHORT_RESNET50.data, height=128, width=64),
    optimizer=replace(_SHORT_RESNET50.optimizer, learning_rate=1e-2),
    base=replace(_SHORT_RESNET50.base, steps=1_800, milestones=(1_300, 1_650), freeze=_LOW),
    rri=replace(
        _SHORT_RESNET50.rri,
        learning_rates=(3e-3,),
        evaluate_restraint=False,
        restraint=replace(_SHORT_RESNET50.rri.restraint, steps=300, milestones=(200,), freeze=("eigenlayer/*", *_LOW)),
        relaxation=replace(_SHORT_RESNET50.rri.relaxation, steps=300, milestones=(200,)),
    ),
)

# Luo et al. 2019, "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", without center loss.
_EPOCH = 185  # of Market-1501: 2 969 groups of four images, 16 groups a batch
_MODERN_RESNET50 = Config(
    preset="modern-resnet50",
    log_every=50,
    checkpoint_every=10 * _EPOCH,
    data=Data(height=256, width=128, batch_size=64, num_instances=4, crop_padding=10, erase_prob=0.5),
    model=Model(
        backbone="resnet50",
        layout="torchvision",
        last_stride=1,
        neck="batchnorm",
        embedding_dim=0,
        dropout=0.0,
        classifier_bias=False,
    ),
    loss=Loss(label_smoothing=0.1, triplet="margin", margin=0.3),
    optimizer=Optimizer(method="adam", learning_rate=3.5e-4, no_decay=()),
    base=Phase(steps=120 * _EPOCH, milestones=(40 * _EPOCH, 70 * _EPOCH), warmup=10 * _EPOCH),
    rri=RRI(rounds=0),
    eval=Eval(metric="cosine"),
)

# The question that nobody has answered: an Eigenlayer above the BNNeck, and RRI on top of the strong baseline.
_MODERN_RESNET50_RRI = replace(
    _MODERN_RESNET50,
    preset="modern-resnet50-rri",
    model=replace(_MODERN_RESNET50.model, embedding_dim=1024),
    rri=RRI(
        rounds=3,
        learning_rates=(3.5e-5,),
        restraint=Phase(steps=10 * _EPOCH, milestones=(7 * _EPOCH,), freeze=("eigenlayer/*",)),
        relaxation=Phase(steps=10 * _EPOCH, milestones=(7 * _EPOCH,)),
        stop="never",
    ),
)

PRESETS: Mapping[str, Config] = MappingProxyType(
    {
        run.preset: run
        for run in (
            Config(),
            _TINY,
            _PAPER_RESNET50,
            _PAPER_CAFFENET,
            _SHORT_RESNET50,
            _CPU_RESNET50,
            _MODERN_RESNET50,
            _MODERN_RESNET50_RRI,
        )
    }
)
