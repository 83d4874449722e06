"""Batches to a trained state: the step, the optimizer of each phase, and the RRI loop."""

from typing import TYPE_CHECKING

from svdnet_jax.lazy import lazy_names

if TYPE_CHECKING:
    from svdnet_jax.data.batches import Batch as Batch
    from svdnet_jax.training.embedding import embed as embed
    from svdnet_jax.training.embedding import make_eval_fn as make_eval_fn
    from svdnet_jax.training.losses import make_loss_fn as make_loss_fn
    from svdnet_jax.training.losses import softmax_loss as softmax_loss
    from svdnet_jax.training.optimizer import make_optimizer as make_optimizer
    from svdnet_jax.training.optimizer import with_learning_rate as with_learning_rate
    from svdnet_jax.training.preprocess import AugmentConfig as AugmentConfig
    from svdnet_jax.training.preprocess import make_preprocess as make_preprocess
    from svdnet_jax.training.state import TrainState as TrainState
    from svdnet_jax.training.state import begin_phase as begin_phase
    from svdnet_jax.training.state import decorrelate_state as decorrelate_state
    from svdnet_jax.training.state import init_state as init_state
    from svdnet_jax.training.step import train_step as train_step

_HOMES = {
    "AugmentConfig": "svdnet_jax.training.preprocess",
    "Batch": "svdnet_jax.data.batches",
    "TrainState": "svdnet_jax.training.state",
    "begin_phase": "svdnet_jax.training.state",
    "decorrelate_state": "svdnet_jax.training.state",
    "embed": "svdnet_jax.training.embedding",
    "init_state": "svdnet_jax.training.state",
    "make_eval_fn": "svdnet_jax.training.embedding",
    "make_loss_fn": "svdnet_jax.training.losses",
    "make_optimizer": "svdnet_jax.training.optimizer",
    "make_preprocess": "svdnet_jax.training.preprocess",
    "softmax_loss": "svdnet_jax.training.losses",
    "train_step": "svdnet_jax.training.step",
    "with_learning_rate": "svdnet_jax.training.optimizer",
}
__all__ = [*_HOMES]
__getattr__ = lazy_names(__name__, _HOMES)
