"""Every setting of a run, as one tree of frozen dataclasses.

The command line is made from these classes (tyro): the docstring of a field is its help text.
`svdnet_jax.config.validate` refuses what cannot work before any work starts. Lengths of training are counted in
optimizer steps, as in the authors' solver files.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from svdnet_jax.config.data import Data as Data
from svdnet_jax.config.data import Synthetic as Synthetic
from svdnet_jax.config.data import place_of
from svdnet_jax.config.work import Compute, Log, Machines
from svdnet_jax.methods import Method

PhaseKind = Literal["base", "restraint", "relaxation", "final"]
Parallel = Literal["auto", "pmap", "single"]


@dataclass(frozen=True)
class Model:
    """Backbone, Eigenlayer and classifier."""

    backbone: str = "mini"
    """Backbone by name: mini (a small residual network), resnet18, resnet34, resnet50, resnet101, resnet50_ibn_a,
    osnet_x1_0, osnet_x0_75, osnet_x0_5, osnet_x0_25 or caffenet."""
    layout: Literal["caffe", "keras", "torchvision", "fastreid", "strongbaseline", "transreid"] = "caffe"
    """Graph of a ResNet: caffe (the paper's), keras, torchvision, fastreid, strongbaseline or transreid. They differ in
    the first pooling and in strides; pretrained weights mean something in theirs alone (docs/recipes.md)."""
    last_stride: Literal[1, 2] = 2
    """Stride of a ResNet's last stage."""
    weights: str | None = None
    """Weights of the backbone to start from: a file of Keras (.h5, model.json), PyTorch (.safetensors, .pth, .ckpt,
    .pth.tar) or Caffe (.caffemodel), hf:owner/name, or the folder of a run. Not given: random."""
    keep_eigenlayer: bool = False
    """Start from the Eigenlayer, and the neck before it, of the run that is `model.weights`; else they start anew."""
    neck: Literal["none", "batchnorm"] = "none"
    """Between pooled feature and Eigenlayer: nothing, or a BatchNorm whose shift stays zero (BNNeck)."""
    embedding_dim: int = 128
    """Outputs of the Eigenlayer (D); at most the backbone's channels (C). 0: no Eigenlayer, for baselines."""
    eigenlayer_std: float = 0.01
    """Standard deviation of the Eigenlayer's initial weights."""
    dropout: float = 0.5
    """Share of Eigenlayer outputs dropped before the classifier while training."""
    classifier_bias: bool = True
    """Whether the classifier has a bias."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the backbone computes in; parameters, Eigenlayer and classifier stay float32."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """Statistics used in training: of the batch, or always the stored ones (the authors' recipe)."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from RGB in [0, 255]. Not given: what the weights were trained with, else ImageNet's."""
    std: tuple[float, float, float] | None = None
    """Divides RGB after the mean. Not given: likewise."""
    mean_image: bool = False
    """Subtract the mean of the training images pixel by pixel instead of one mean a channel (the authors' recipe)."""
    remat: bool = False
    """Compute the activations inside a residual block again for the gradient instead of keeping them: a good deal less
    memory for about a third more work, and the same results. A run may go on with another value."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training with a fixed set of trainable weights and fresh momentum."""

    steps: int
    """Optimizer steps."""
    milestones: tuple[int, ...] = ()
    """Steps of the phase at which the learning rate is divided by ten."""
    freeze: tuple[str, ...] = ()
    """Weights held fixed: shell patterns over paths, such as eigenlayer/* or */bn*/scale."""
    multipliers: tuple[tuple[str, float], ...] = ()
    """Pattern and factor of the learning rate of what it matches; the first match counts."""
    warmup: int = 0
    """Steps over which the learning rate rises linearly from a hundredth."""


@dataclass(frozen=True)
class RRI:
    """Restraint and Relaxation Iteration."""

    rounds: int = 4
    """Rounds at most."""
    method: Method = "us"
    """What replaces W = U S V' at each round. Two are controls: none is the same training without it, and rotation is
    W R with a random orthogonal R, which throws the classifier off as U S does and leaves W correlated."""
    match: bool = True
    """Give each old column the closest new one, with sign (the authors' code, not in the paper)."""
    unmatched_rounds: int = 0
    """So many rounds at the start go without matching all the same."""
    rotate_classifier: bool = False
    """Turn the classifier with the features when W is replaced by U S or W R, so that the loss does not jump. Not in
    the paper, where that jump is what sets training going again."""
    learning_rates: tuple[float, ...] = (0.02,)
    """Learning rate of each round; the last one repeats."""
    restraint: Phase = field(default_factory=lambda: Phase(steps=90, milestones=(60,), freeze=("eigenlayer/*",)))
    relaxation: Phase = field(default_factory=lambda: Phase(steps=90, milestones=(60,)))
    final: Phase | None = None
    """A last restraint in place of the last round's relaxation."""
    stop: Literal["stable", "never"] = "stable"
    """When to stop before the last round: when S(W) is stable (the paper's rule; not the controls), or never."""
    tolerance: float = 0.005
    """S(W) is stable if after relaxation it rose by less than this over the round before."""
    evaluate_restraint: bool = True
    """Measure retrieval after restraints too. Without, only a round's last phase is measured, by which it is judged,
    and half as many test images are embedded."""


@dataclass(frozen=True)
class Penalty:
    """Penalties that ask for orthogonality while training goes on; see `svdnet_jax.baselines.orthogonality`."""

    kind: Literal["none", "soft", "double-soft", "coherence", "srip", "spectral-difference"] = "none"
    """Of the Eigenlayer's weight: none, soft or double soft orthogonality, mutual coherence, SRIP (Bansal et al. 2018)
    or the difference of the largest and the smallest eigenvalue (ABD-Net)."""
    weight: float = 0.0
    """Weight of the penalty."""
    scale: Literal["none", "common", "columns"] = "none"
    """Lengths of columns that are taken out first: none, a common one, or each column's own, as for S(W)."""
    features: float = 0.0
    """What ABD-Net's penalty on the last feature map is multiplied by; 0 leaves it out."""
    begin: Literal["start", "rounds"] = "start"
    """From when on: from the first step, or in the rounds only, so that Step 0 is that of a run without."""


@dataclass(frozen=True)
class Loss:
    """What is minimised: softmax cross-entropy, a triplet loss beside it if wanted, and penalties."""

    label_smoothing: float = 0.0
    """Share of the target spread evenly over all identities (label smoothing)."""
    triplet: Literal["none", "soft", "margin"] = "none"
    """Batch-hard triplet loss on the pooled feature: none, with the soft margin, or with --loss.margin."""
    margin: float = 0.3
    """Margin of the triplet loss."""
    penalty: Penalty = field(default_factory=Penalty)


@dataclass(frozen=True)
class Optimizer:
    """Stochastic gradient descent in Caffe's form, or Adam."""

    method: Literal["sgd", "adam"] = "sgd"
    """Momentum SGD with the rate inside the momentum as in Caffe, or Adam (weight decay added to the gradient)."""
    learning_rate: float = 0.1
    """Learning rate of Step 0."""
    momentum: float = 0.9
    """Share of the last step that is taken again (of SGD)."""
    weight_decay: float = 5e-4
    """Added to the gradient, times the weight."""
    no_decay: tuple[str, ...] = ("*/bias",)
    """Weights without decay: shell patterns over paths."""
    grad_accum_steps: int = 1
    """Parts in which a batch goes through the network, one after the other, their gradients averaged: memory for one
    part only. BatchNorm's statistics and triplets are then of a part."""


@dataclass(frozen=True)
class Eval:
    """Retrieval on query and gallery."""

    metric: Literal["euclidean", "cosine"] = "euclidean"
    """Distance that ranks the gallery."""
    cross_camera: bool = True
    """Leave out gallery images of the query's identity taken by the query's camera (Market-1501's protocol)."""
    batch_size: int = 128
    """Images embedded at a time."""
    train_images: int = 2048
    """At most so many training images give the loss and accuracy at the borders of phases."""


@dataclass(frozen=True)
class Config:
    """One training run: Step 0, then rounds of decorrelation, restraint and relaxation."""

    preset: str = "synthetic"
    """Named settings to start from, which other options change: synthetic, tiny (the whole loop in a minute),
    paper-resnet50, paper-caffenet, short-resnet50, cpu-resnet50, modern-resnet50 or modern-resnet50-rri."""
    out: Path | None = None
    """Folder of the run (not given: runs/ and the name of data or preset). The same command again resumes it."""
    base_from: Path | None = None
    """Folder of a finished run with --rri.rounds 0 and otherwise the same settings: its Step 0 is taken over instead of
    trained, to the bit, and only the rounds are run."""
    seed: int = 0
    """Seed of initial weights, sample order, flips, dropout and of who is held out for validation."""
    log_every: int = 30
    """Steps between two lines of the log."""
    checkpoint_every: int = 120
    """Steps between two checkpoints; one is written after every phase too, and when Ctrl-C or SIGTERM stops the run.
    The latest two and the best one stay."""
    parallel: Parallel = "auto"
    """Devices: auto takes all (jit over a mesh of them), pmap all of one machine by jax.pmap, single the first. The
    batch is shared among them; a run may go on on other devices. The parameters are the same up to rounding, but that
    pmap draws other masks for dropout."""
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    base: Phase = field(default_factory=lambda: Phase(steps=900, milestones=(540, 780)))
    rri: RRI = field(default_factory=RRI)
    eval: Eval = field(default_factory=Eval)
    compute: Compute = field(default_factory=Compute)
    machines: Machines = field(default_factory=Machines)
    log: Log = field(default_factory=Log)

    @property
    def folder(self) -> Path:
        """Folder of the run: what --out says, else named by the data, else by the preset."""
        if self.out is not None:
            return self.out
        roots = [place_of(entry)[0].resolve() for entry in self.data.more]
        if self.data.root is not None:
            roots.insert(0, self.data.root.resolve())
        names = [root.stem if root.suffix in (".csv", ".tsv", ".parquet") else root.name for root in roots]
        if self.data.root is None or self.preset != "synthetic":
            names.append(self.preset)
        return Path("runs") / "-".join(names)


def input_size(data: Data) -> tuple[int, int]:
    """Returns height and width that the network sees."""
    return data.height, data.width
