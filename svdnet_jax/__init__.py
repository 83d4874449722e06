"""Person re-identification with SVDNet, purely functional, in JAX and Flax.

What is named here is the public interface; everything else may change.
"""

from svdnet_jax._version import __version__ as __version__
from svdnet_jax.eigenlayer import correlation as correlation
from svdnet_jax.eigenlayer import decorrelate as decorrelate
from svdnet_jax.eigenlayer import gram as gram
from svdnet_jax.eigenlayer import match_columns as match_columns
from svdnet_jax.eigenlayer import spectrum as spectrum
from svdnet_jax.retrieval.embeddings import Embeddings as Embeddings
from svdnet_jax.retrieval.metrics import evaluate as evaluate
from svdnet_jax.retrieval.results import Report as Report
