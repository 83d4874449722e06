"""`TrainState`: everything a run is, as one frozen pytree."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from svdnet_jax import eigenlayer
from svdnet_jax.distributed.mesh import replicate_on
from svdnet_jax.methods import Method
from svdnet_jax.models.pretrained.convert import IMAGENET_MEAN, IMAGENET_STD
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.training.optimizer import with_learning_rate


class Cursor(flax.struct.PyTreeNode):
    """Position in the phase schedule."""

    phase: Int[Array, ""]
    """Index of the phase in the plan; the plan's length when the run is over."""
    step: Int[Array, ""]
    """Optimizer steps done in it. At 0 in a restraint phase, W is still to be decorrelated."""
    correlation: Float[Array, ""]
    """S(W) after the last relaxation (or Step 0), for the stopping rule."""


class TrainState(flax.struct.PyTreeNode):
    """Weights, statistics, optimizer, position and randomness of a run."""

    params: PyTree[Array]
    """Trained weights; their paths are what freeze patterns speak of."""
    batch_stats: PyTree[Array]
    """Running statistics of BatchNorm."""
    pixels: PyTree[Array]
    """What is subtracted from pixels, and what divides them."""
    opt_state: PyTree[Array]
    """Of the optimizer of the phase; `begin_phase` makes it."""
    step: Int[Array, ""]
    """Optimizer steps done in all; also the position in the stream of batches."""
    rng: PRNGKeyArray
    """Key of the run, never changed: the key of a step is folded from it and the step."""
    cursor: Cursor
    """Position in the phase schedule of a run; a loop of your own does not need it."""

    @property
    def variables(self) -> dict[str, PyTree[Array]]:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats, "pixels": self.pixels}

    @property
    def eigenlayer(self) -> Float[Array, "C D"]:
        """W, the weight of the Eigenlayer; of the classifier where a baseline has no Eigenlayer."""
        return self.params["eigenlayer" if "eigenlayer" in self.params else "classifier"]["kernel"]

    def with_eigenlayer(self, W: Float[Array, "C D"]) -> "TrainState":
        """Returns the same state with another W."""
        return self.replace(params={**self.params, "eigenlayer": {"kernel": replicate_on(W, self.eigenlayer.sharding)}})

    def with_classifier(self, kernel: Float[Array, "D K"]) -> "TrainState":
        """Returns the same state with another kernel of the classifier, its bias as it was."""
        old = self.params["classifier"]
        new = {**old, "kernel": replicate_on(kernel, old["kernel"].sharding)}
        return self.replace(params={**self.params, "classifier": new})


def init_state(
    model: SVDNet,
    size: tuple[int, int],
    seed: int,
    mean: Sequence[float] | np.ndarray = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> TrainState:
    """Makes the state of a new run, without an optimizer: `begin_phase` brings it.

    Args:
        model: The network.
        size: Height and width of its input.
        seed: Of the initial weights and of all randomness in the steps.
        mean: Subtracted from RGB in [0, 255]; one number a channel, or a mean image (H, W, 3).
        std: Divides after it, one number a channel.

    Raises:
        ValueError: They are of images in [0, 1], of another size, or not to be divided by.
    """
    _check_pixels(np.shape(mean), np.asarray(std), size)
    weights, steps = jax.random.split(jax.random.key(seed))
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    # Lazy: the shapes are followed through the network without computing anything on images.
    variables = jax.jit(lambda key: model.lazy_init(key, images, train=False))(weights)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        pixels={
            "mean": jnp.asarray(mean, jnp.float32).reshape(1, 1, 3) if np.ndim(mean) == 1 else jnp.asarray(mean),
            "std": jnp.asarray(std, jnp.float32).reshape(1, 1, 3),
        },
        opt_state=(),
        step=zero,
        rng=steps,
        cursor=Cursor(zero, zero, jnp.zeros((), jnp.float32)),
    )
    # Committed to its device from the start, as a restored state is: jit would compile anew for a mixture.
    return jax.device_put(state, jax.local_devices()[0])


def begin_phase(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    learning_rate: float,
    *,
    phase: int = 0,
    correlation: Float[Array | np.ndarray, ""] | float = 0.0,
) -> TrainState:
    """Returns the state at the start of a phase: cursor moved, momentum fresh as in the authors' solver.

    Args:
        state: Before it.
        optimizer: Of the phase.
        learning_rate: Of the first step, for an optimizer of `svdnet_jax.training.make_optimizer`; others have their
            own. A loop may set another before each step, by `with_learning_rate`.
        phase: Index in the schedule of a run; of no meaning in a loop of your own.
        correlation: S(W) after the last relaxation, for the stopping rule of a run.
    """
    where = state.step.sharding
    zero, S = jnp.zeros((), jnp.int32), jnp.asarray(correlation, jnp.float32)
    cursor = replicate_on(Cursor(jnp.asarray(phase, jnp.int32), zero, S), where)
    opt_state = jax.jit(optimizer.init, out_shardings=where)(state.params)
    if "learning_rate" in getattr(opt_state, "hyperparams", {}):
        opt_state = with_learning_rate(opt_state, replicate_on(jnp.asarray(learning_rate, jnp.float32), where))
    return state.replace(opt_state=opt_state, cursor=cursor)


def decorrelate_state(
    state: TrainState, method: Method = "us", *, match: bool = True, seed: eigenlayer.Seed = 0
) -> TrainState:
    """Returns the state with its W replaced, before a restraint; a stack of states has each of its own replaced.

    Args:
        state: After Step 0 or a relaxation. Outside of jit: the SVD looks at values.
        method: What to put in place of W; ``us`` keeps every distance between embeddings.
        match: Order and sign the new columns after the old ones, near what the classifier expects.
        seed: Of ``rotation``.
    """
    return state.with_eigenlayer(eigenlayer.decorrelate(state.eigenlayer, method, match=match, seed=seed))


def _check_pixels(mean: tuple[int, ...], std: np.ndarray, size: tuple[int, int]) -> None:
    if mean not in ((3,), (*size, 3)):
        raise ValueError(
            f"mean has the shape {mean}; expected one number a channel, (3,), or a mean image of the network's input, "
            f"{(*size, 3)}"
        )
    # No pixel in [0, 255] is of so small a unit; 0.229 and the like are of images in [0, 1].
    if std.shape != (3,) or not (np.isfinite(std) & (std >= 1)).all():
        raise ValueError(
            f"std is {std.tolist()}; expected three numbers of 1 or more, for RGB in [0, 255]. Mean and std of "
            "images in [0, 1] are to be multiplied by 255"
        )
