"""Devices of a run: where the images lie, and that each image has a dropout of its own on whichever device it is."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from svdnet_jax.config.schema import Compute, Config, Optimizer
from svdnet_jax.data.batches import Batch
from svdnet_jax.distributed import mesh as module
from svdnet_jax.distributed.mesh import AXIS, MeshContext, fits_on_device
from svdnet_jax.models.svdnet import SVDNet
from svdnet_jax.training.compile import StepConfig, make_train_call
from svdnet_jax.training.optimizer import make_optimizer
from svdnet_jax.training.preprocess import AugmentConfig
from svdnet_jax.training.state import begin_phase, init_state

GIB = 2**30


# A device that tells nothing, as a CPU does, counts as one of 8 GiB.
@pytest.mark.parametrize(("told", "quarter"), [({"bytes_limit": 80 * GIB}, 20 * GIB), (None, 2 * GIB), ({}, 2 * GIB)])
def test_images_lie_on_the_devices_where_they_fill_a_quarter_at_most(told, quarter, monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: told)
    monkeypatch.setattr(module, "jax", SimpleNamespace(local_devices=lambda: [device]))
    assert fits_on_device(Config().compute, quarter)
    assert not fits_on_device(Config().compute, quarter + 1)
    assert not fits_on_device(Config(compute=Compute(images="host")).compute, 1)
    assert fits_on_device(Config(compute=Compute(images="device")).compute, quarter + 1)


UNITS = 64


class Ones(nn.Module):
    """A backbone for which all images are alike."""

    channels: int = UNITS

    def __call__(self, x, *, train):
        return jnp.ones((len(x), 1, 1, self.channels))


@pytest.mark.parametrize(
    ("mode", "count", "parts"), [("single", 1, 1), ("single", 1, 2), ("auto", 2, 1), ("pmap", 2, 1)]
)
def test_no_two_images_share_a_dropout(mode, count, parts):
    mesh = jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    devices = MeshContext(mode, mesh)
    model = SVDNet(Ones(), embedding_dim=0, num_classes=2, dropout=0.5)
    fresh = init_state(model, (1, 1), 0)
    settings = Optimizer(momentum=0.0, weight_decay=0.0)
    optimizer = make_optimizer(fresh.params, settings=settings)
    # With no weights both classes have half of the chances, whatever is dropped.
    state = begin_phase(
        fresh.with_classifier(jnp.zeros((UNITS, 2))), optimizer, 1.0, phase=0, correlation=fresh.cursor.correlation
    )
    call = make_train_call(model, optimizer, StepConfig(AugmentConfig((1, 1)), grad_accum_steps=parts), devices)
    shape = (1, count, 2 // count) if mode == "pmap" else (1, 2)
    batch = Batch(np.zeros((*shape, 1, 1, 3), np.uint8), np.zeros(shape, np.int32))
    if mode != "pmap":
        batch = jax.tree.map(lambda rows: jax.device_put(rows, devices.sharded(1)), batch)
    after, _ = call(devices.replicate(state), None, batch, devices.replicate(jnp.ones(1)))
    # A unit's step is a mean over the two images, 1/2 times 2 for each that kept it.
    kept = 2 * np.asarray(after.params["classifier"]["kernel"])[:, 0]
    assert set(np.round(kept, 5)) == {0, 1, 2}
