"""Writes embeddings, figures and the report of a finished run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from svdnet_jax.config.schema import Config, Eval
from svdnet_jax.config.serialize import to_json
from svdnet_jax.data.synthetic.generate import contact_sheet
from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.figures import distances as distance_figures
from svdnet_jax.reporting.figures import training as figures
from svdnet_jax.reporting.figures.ranked import RankedList, choose_queries, ranked_lists
from svdnet_jax.reporting.figures.retrieval import cmc
from svdnet_jax.reporting.figures.style import can_draw, save
from svdnet_jax.reporting.log import Record, after_rounds, border_name
from svdnet_jax.reporting.report import write_report
from svdnet_jax.retrieval.distributions import distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.intervals import Sums
from svdnet_jax.retrieval.metrics import ranked_list
from svdnet_jax.retrieval.results import Report
from svdnet_jax.runs.directory import RunDir, load_eigenlayer, load_identities, read_environment, save_embeddings
from svdnet_jax.training.schedule import build_schedule

TRAINED = {"Command": "command", "Begun": "begun"}
"""Facts that the environment of a run tells."""
SHOWN = 10
"""Gallery images in a ranked list."""
LONGEST = 14
"""Characters of an identity's text under a picture."""


def write_artifacts(
    run_dir: RunDir,
    config: Config,
    dataset: Dataset,
    records: Sequence[Record],
    query: Mapping[str, Embeddings],
    gallery: Mapping[str, Embeddings],
    reports: Mapping[str, Report],
    facts: Mapping[str, str],
) -> Path:
    """Writes embeddings, figures and report of a finished run.

    Args:
        run_dir: The run folder.
        config: Settings of the run.
        dataset: What it trained and was tested on.
        records: Its log.
        query: Final embeddings of the queries by name, ``embedding`` and ``pooled``.
        gallery: The same of the gallery.
        reports: What their evaluation found, by the same names.
        facts: What a reader must know to judge the numbers.

    Returns:
        The report.
    """
    save_embeddings(run_dir, query, gallery)
    drawn = {
        "curves": ("Loss and S(W) while training", figures.curves(records, build_schedule(config))),
        "rounds": (
            "Retrieval by round, for both embeddings; bands: 95 % intervals over the people of the test set",
            figures.rounds(records, sums=_sums(run_dir, records)),
        ),
        "cmc": ("Queries with a right answer among the first k", cmc(reports)),
        **_distances(run_dir, config, query, gallery),
        **_gram(run_dir),
        "singular_values": ("Spectrum of W", figures.singular_values(_spectra(records))),
        "ranked_lists": (
            "Queries and their nearest gallery images, by the Eigenlayer's output",
            _ranked(reports["embedding"].ap, config.eval, dataset, query["embedding"], gallery["embedding"]),
        ),
    }
    pictures = {}
    for name, (caption, figure) in drawn.items():
        pictures[caption] = run_dir.figure(name)
        save(figure, pictures[caption])
    sheet = run_dir.figure("contact_sheet")
    # 256 colours: the noise of cameras would make a large file of a picture that is only looked at.
    Image.fromarray(_sheet(dataset.train)).quantize().save(sheet)
    pictures["Training images, one row an identity"] = sheet
    # What trained the model, which need not be what draws this report.
    trained = read_environment(run_dir)
    facts = {"Folder": str(run_dir.path.resolve()), **facts}
    write_report(
        run_dir.report,
        title=f"SVDNet on {dataset.name}",
        config=to_json(config),
        environment=trained,
        records=records,
        figures=pictures,
        facts=facts | {name: str(trained[key]) for name, key in TRAINED.items() if key in trained},
    )
    return run_dir.report


def _sums(run_dir: RunDir, records: Sequence[Record]) -> dict[int, Sums]:
    """Returns the results by identity after each round; those of an older version are not there."""
    found = {r["round"]: load_identities(run_dir, r["round"], r["phase"]) for r in after_rounds(records)}
    return {number: sums for number, sums in found.items() if sums}


def _distances(
    run_dir: RunDir, config: Config, query: Mapping[str, Embeddings], gallery: Mapping[str, Embeddings]
) -> dict[str, tuple[str, Any]]:
    """Returns distances before and after the rounds, as caption and figure; nothing for a test set of one identity."""
    kind, by = (
        ("embedding", "the Eigenlayer's output") if config.model.embedding_dim else ("pooled", "the pooled feature")
    )
    after = query[kind], gallery[kind]
    base = [run_dir.embeddings(kind, split, base=True) for split in ("query", "gallery")]
    if len(np.unique(np.concatenate([side.pids[side.pids >= 0] for side in after]))) < 2:
        return {}
    moments = {"after the last round" if config.rri.rounds else "after Step 0": after}
    # There is none beside a run that an older version of this code began.
    if config.rri.rounds and all(path.exists() for path in base):
        try:
            before = Embeddings.load(base[0]), Embeddings.load(base[1])
        except ValueError as error:
            raise ConfigError(f"{error} Take it away and start the command again: nothing else is lost.") from error
        moments = {"after Step 0": before} | moments
    protocol = config.eval.metric, config.eval.cross_camera
    by_moment = {title: distance_distributions(*sides, *protocol) for title, sides in moments.items()}
    caption = f"Distances within and between identities, by {by} ({' → '.join(by_moment)}): "
    caption += distance_figures.key_numbers(by_moment)
    return {"distances": (caption, distance_figures.distributions(by_moment))}


def _gram(run_dir: RunDir) -> dict[str, tuple[str, Any]]:
    """Returns the Gram matrices at borders, as caption and figure; nothing where no W was kept."""
    moments = {"base": "after Step 0", "decorrelate": "after the first SVD", "relaxation": "after the last relaxation"}
    moments["final"] = "after the final restraint"
    matrices_at = {title: load_eigenlayer(run_dir, border) for border, title in moments.items()}
    matrices = {title: W.astype(np.float64) for title, W in matrices_at.items() if W is not None}
    if not matrices:
        return {}
    return {"gram": ("Cosines between the columns of W", figures.gram({t: W.T @ W for t, W in matrices.items()}))}


def _spectra(records: Sequence[Record]) -> dict[str, np.ndarray]:
    return {border_name(record): np.array(record["spectrum"]) for record in after_rounds(records)}


def _ranked(
    ap: Float[np.ndarray, " q"], settings: Eval, dataset: Dataset, query: Embeddings, gallery: Embeddings
) -> Any:
    protocol: dict[str, Any] = {"metric": settings.metric, "cross_camera": settings.cross_camera}
    sections = {}
    for heading, chosen in choose_queries(ap).items():
        rows = []
        for index in chosen:
            nearest, right, distances = ranked_list(query, gallery, int(index), SHOWN, **protocol)
            captions = [f"c{dataset.gallery.cameras[i]}  {d:.2f}" for i, d in zip(nearest, distances, strict=True)]
            rows.append(
                RankedList(
                    query=dataset.query.images[index],
                    query_caption=f"{_short(query, int(index))} c{query.cameras[index]}",
                    gallery=list(dataset.gallery.images[nearest]),
                    right=right,
                    captions=captions,
                    average_precision=float(ap[index]),
                )
            )
        if rows:
            sections[heading] = rows
    title = (
        f"The {SHOWN} nearest gallery images of the queries with the best, the median and the worst average "
        "precision; under each its camera and distance"
    )
    return ranked_lists(sections, title)


def _short(query: Embeddings, row: int) -> str:
    """Returns what fits under a picture of whom a query shows: a text that the figure's font has, else the number."""
    text = query.people.get(int(query.pids[row]), "")
    if not text or not can_draw(text):
        return f"{query.pids[row]:04d}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _sheet(split: Split, identities: int = 6, columns: int = 12) -> np.ndarray:
    """Returns a grid of the first images of evenly spread identities, one row each."""
    known = np.unique(split.pids)
    shown = known[np.linspace(0, len(known) - 1, min(identities, len(known))).astype(int)]
    blank = np.full_like(split.images[0], 255)
    rows = []
    for pid in shown:
        mine = list(split.images[split.pids == pid][:columns])
        rows += mine + [blank] * (columns - len(mine))
    return contact_sheet(rows, columns)
