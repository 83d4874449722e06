"""Writes embeddings, figures and the report of a finished run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from svdnet_jax.config.schema import Config
from svdnet_jax.config.serialize import to_json
from svdnet_jax.data.synthetic.generate import contact_sheet
from svdnet_jax.data.types import Dataset, Split
from svdnet_jax.errors import ConfigError
from svdnet_jax.reporting.figures import distances as distance_figures
from svdnet_jax.reporting.figures import training as figures
from svdnet_jax.reporting.figures.retrieval import cmc
from svdnet_jax.reporting.figures.style import save
from svdnet_jax.reporting.log import Record, after_rounds, border_name
from svdnet_jax.reporting.ranks import write_ranks
from svdnet_jax.reporting.report import write_report
from svdnet_jax.retrieval.distributions import distance_distributions
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.first_ranks import first_ranks
from svdnet_jax.retrieval.intervals import Sums
from svdnet_jax.retrieval.results import Report
from svdnet_jax.runs.conclusion import conclusion
from svdnet_jax.runs.directory import RunDir, load_eigenlayer, load_identities, read_environment, save_embeddings
from svdnet_jax.runs.pictures import SHOWN, Pixels, Ranked, alike_figure, ranked_figure
from svdnet_jax.training.schedule import build_schedule

TRAINED = {"Command": "command", "Begun": "begun"}
"""Facts that the environment of a run tells."""


def write_artifacts(
    run_dir: RunDir,
    config: Config,
    dataset: Dataset,
    records: Sequence[Record],
    query: Mapping[str, Embeddings],
    gallery: Mapping[str, Embeddings],
    reports: Mapping[str, Report],
    facts: Mapping[str, str],
    pixels: Pixels,
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
        pixels: The network's features of pixels.

    Returns:
        The report.
    """
    save_embeddings(run_dir, query, gallery)
    drawn = {
        "curves": ("Loss and S(W) while training", figures.curves(records, build_schedule(config))),
        "rounds": (
            "Retrieval by round, for both embeddings; bands: 95 % intervals over the people it was tested on, of each "
            "number by itself. A change from round to round is of the same people and surer than the bands look",
            figures.rounds(records, sums=_sums(run_dir, records)),
        ),
        "cmc": ("Queries with a right answer among the first k", cmc(reports)),
        **_distances(run_dir, config, query, gallery),
        **_gram(run_dir),
        "singular_values": ("Spectrum of W", figures.singular_values(_spectra(records))),
        **_lists(run_dir, config, dataset, query["embedding"], gallery["embedding"], reports["embedding"], pixels),
    }
    pictures = {}
    for name, (caption, figure) in drawn.items():
        pictures[caption] = run_dir.figure(name)
        save(figure, pictures[caption])
    sheet = run_dir.figure("contact_sheet")
    # 256 colours: the noise of cameras would make a large file of a picture that is only looked at.
    about = PngInfo()
    about.add_text("Software", "svdnet_jax")
    Image.fromarray(_sheet(dataset.train)).quantize().save(sheet, pnginfo=about)
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
        conclusion=conclusion(run_dir, config.rri, records),
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


def _lists(
    run_dir: RunDir,
    config: Config,
    dataset: Dataset,
    query: Embeddings,
    gallery: Embeddings,
    report: Report,
    pixels: Pixels,
) -> dict[str, tuple[str, Any]]:
    """Writes the table of ranks; returns ranked lists and what makes pairs alike, as caption and figure."""
    protocol = config.eval.metric, config.eval.cross_camera
    write_ranks(run_dir.ranks, query, gallery, first_ranks(query, gallery, SHOWN, *protocol))
    ranked = Ranked(dataset, query, gallery, report.ap, *protocol)
    by = "by the Eigenlayer's output" if config.model.embedding_dim else "by the pooled feature"
    name = run_dir.ranks.relative_to(run_dir.path).as_posix()
    caption = f"Queries and their nearest gallery images, {by}; {name} has all queries"
    drawn = {
        "ranked_lists": (caption, ranked_figure(ranked)),
        "alike": (
            f"What makes queries and their nearest gallery images alike, and what sets them apart, {by}",
            alike_figure(ranked, pixels, "embedding"),
        ),
    }
    return {name: (caption, figure) for name, (caption, figure) in drawn.items() if figure is not None}


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
