"""Which images make the batch of each step, as a pure function of seed and step.

Nothing is carried from one step to the next, so any step can be asked for at any time and a resumed run needs no
state. The random numbers are raw bits of Philox keyed by seed and epoch: NumPy promises that those stay the same
from version to version, and does not promise it of its shuffles.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, UInt64

from svdnet_jax.errors import ConfigError, DataError

BatchSampler = Callable[[int], Int[np.ndarray, " B"]]
"""Step, counted from zero -> positions in the training split of the images of its batch."""
Bits = Callable[[int], UInt64[np.ndarray, " n"]]
"""How many -> the next so many random numbers of 64 bits."""


def shuffle_batches(samples: int, batch_size: int, seed: int) -> BatchSampler:
    """Returns a sampler of every image once an epoch, in a new order each; a batch may reach across epochs.

    Args:
        samples: Images there are.
        batch_size: Images of a batch.
        seed: Of all epochs together.

    Examples:
        >>> order = shuffle_batches(6, batch_size=4, seed=0)
        >>> sorted(np.concatenate([order(0), order(1), order(2)]).tolist())  # two epochs
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    """

    @lru_cache(maxsize=2)  # A batch can need the epochs on both sides of a border.
    def epoch(number: int) -> Int[np.ndarray, " N"]:
        return _permutation(_bits(seed, number), samples)

    def order(step: int) -> Int[np.ndarray, " B"]:
        start, stop = step * batch_size, (step + 1) * batch_size
        first, last = start // samples, (stop - 1) // samples
        parts = [
            epoch(number)[max(start - number * samples, 0) : stop - number * samples]
            for number in range(first, last + 1)
        ]
        return np.concatenate(parts)

    return order


def pk_batches(classes: Int[np.ndarray, " N"], batch_size: int, per_identity: int, seed: int) -> BatchSampler:
    """Batches of P = B / K identities with K images each (PK sampling: Hermans et al. 2017, section 2).

    In each epoch every identity's images are shuffled and cut into groups of K. Those of an identity with fewer than
    K images are taken again in turn to fill one group; a remainder smaller than K is left out. An identity's groups
    are spread over the epoch, and **no batch has an identity twice**. Epochs are whole numbers of batches: fewer than
    P groups, other ones each time, are left out for it, and of an identity with more groups than batches the groups
    in excess. A batch holds the K images of its first identity, then those of its second, and so on.

    Args:
        classes: Identity of each image, by any numbers.
        batch_size: Images of a batch, B.
        per_identity: Images of each identity in a batch, K.
        seed: Of all epochs together.

    Raises:
        ConfigError: K does not divide B.
        DataError: There are fewer than P identities.

    Examples:
        >>> people = np.array([7, 7, 7, 8, 8, 8, 9, 9, 9])
        >>> batch = pk_batches(people, batch_size=6, per_identity=3, seed=0)(0)
        >>> [int((people[batch] == person).sum()) for person in np.unique(people[batch])]
        [3, 3]
    """
    if per_identity < 1 or batch_size % per_identity:
        raise ConfigError(
            f"`data.num_instances` {per_identity}: must be a positive divisor of `data.batch_size` {batch_size}"
        )
    known, classes, images = np.unique(classes, return_inverse=True, return_counts=True)
    size = batch_size // per_identity
    if size > len(known):
        raise DataError(
            f"`data.batch_size` {batch_size} with `data.num_instances` {per_identity} puts {size} identities in a "
            f"batch, and there are {len(known)} to train on; lower the first or raise the second"
        )
    first_image = np.cumsum(images) - images
    groups, steps = _whole_batches(np.maximum(images // per_identity, 1), size)

    @lru_cache(maxsize=1)
    def epoch(number: int) -> Int[np.ndarray, "steps B"]:
        bits = _bits(seed, number)
        mixed = _permutation(bits, len(classes))
        mixed = mixed[np.argsort(classes[mixed], kind="stable")]
        identity, turn = _deal(_leave_out(groups, steps * size, bits), size, bits)
        place = (turn[..., None] * per_identity + np.arange(per_identity)) % images[identity][..., None]
        return mixed[first_image[identity][..., None] + place].reshape(steps, batch_size)

    return lambda step: epoch(step // steps)[step % steps].copy()


def _whole_batches(groups: Int[np.ndarray, " M"], size: int) -> tuple[Int[np.ndarray, " M"], int]:
    """Groups of each identity that can be used, and the most batches without an identity twice that they fill.

    Of an identity with g groups, s batches have room for min(g, s); they can be filled if that sums to s times the
    size at least. Coming from above, the first such s is the largest.
    """
    steps = int(groups.sum()) // size
    while (room := int(np.minimum(groups, steps).sum()) // size) < steps:
        steps = room
    return np.minimum(groups, steps), steps


def _leave_out(groups: Int[np.ndarray, " M"], total: int, bits: Bits) -> Int[np.ndarray, " M"]:
    """Groups of each identity after some have been left out at random, ``total`` in all."""
    owners = np.repeat(np.arange(len(groups)), groups)
    return np.bincount(owners[_permutation(bits, len(owners))][:total], minlength=len(groups))


def _deal(
    groups: Int[np.ndarray, " M"], size: int, bits: Bits
) -> tuple[Int[np.ndarray, "steps P"], Int[np.ndarray, "steps P"]]:
    """Deals all groups to batches: identity of each place, and which of its groups stands there.

    Group j of an identity's n is due at a random time in [j/n, (j+1)/n]. Each batch takes the next groups of those
    identities that are due first, but before them any that has as many groups left as there are batches. With
    n <= steps and sum(n) = steps x size this always ends with every batch full: after each batch the same holds
    of the groups and batches left.
    """
    steps = int(groups.sum()) // size
    first = np.cumsum(groups) - groups
    owners = np.repeat(np.arange(len(groups)), groups)
    turns = np.arange(len(owners)) - first[owners]
    times = np.append((turns + _uniform(bits, len(owners))) / groups[owners], np.inf)
    identity = np.empty((steps, size), np.int64)
    turn = np.empty_like(identity)
    taken = np.zeros_like(groups)
    for step in range(steps):
        left = groups - taken
        due = np.where(left > 0, times[first + taken], np.inf)
        due[left == steps - step] = -np.inf
        next_ones = np.sort(np.argpartition(due, size - 1)[:size])  # Sorted, as NumPy leaves their order open.
        identity[step] = next_ones[np.argsort(due[next_ones], kind="stable")]
        turn[step] = taken[identity[step]]
        taken[identity[step]] += 1
    return identity, turn


def _bits(seed: int, epoch: int) -> Bits:
    return np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw


def _permutation(bits: Bits, n: int) -> Int[np.ndarray, " n"]:
    return np.argsort(bits(n), kind="stable")


def _uniform(bits: Bits, n: int) -> Float[np.ndarray, " n"]:
    """Returns numbers in [0, 1), multiples of 2^-53."""
    return (bits(n) >> np.uint64(11)) * 2.0**-53
