"""What `svdnet evaluate` finds out about query and gallery: measured, printed, written as JSON, drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from svdnet_jax.config.flags import Flag
from svdnet_jax.reporting.ranks import write_ranks
from svdnet_jax.retrieval.camera_pairs import CameraPairs, camera_pairs
from svdnet_jax.retrieval.distances import Metric
from svdnet_jax.retrieval.distributions import Distributions, distance_distributions
from svdnet_jax.retrieval.doubts import doubts
from svdnet_jax.retrieval.embeddings import Embeddings
from svdnet_jax.retrieval.first_ranks import first_ranks
from svdnet_jax.retrieval.intervals import Interval, caution, report_differences, report_intervals
from svdnet_jax.retrieval.metrics import evaluate
from svdnet_jax.retrieval.multi_query import multi_query
from svdnet_jax.retrieval.rerank import Rerank
from svdnet_jax.retrieval.results import Report
from svdnet_jax.retrieval.self_out import By, SelfOut, is_one_set, leave_self_out
from svdnet_jax.retrieval.single_shot import SingleShot, evaluate_single_shot

if TYPE_CHECKING:  # Flax and all that belongs to training, which files of embeddings can do without
    from svdnet_jax.data.types import Dataset
    from svdnet_jax.runs.inference import Embedder

FIGURES = ("cmc", "camera_pairs", "distances")
"""Names of what is drawn of embeddings."""
PICTURES = ("ranked_lists", "alike")
"""Names of what is drawn of a network, whose images are there."""
RANKS = "ranks.csv"
"""The table of ranks, beside the figures."""
SHOWN = 10
"""Ranks in it."""


@dataclass(frozen=True)
class Measures:
    """What to measure beside CMC, mAP and mINP."""

    rerank: Flag = False
    """Re-rank by k-reciprocal neighbours (Zhong et al. 2017); the numbers without it are given too."""
    k1: int = 20
    """--rerank: neighbours that must be reciprocal."""
    k2: int = 6
    """--rerank: images that the query expansion averages."""
    weight: Annotated[float, tyro.conf.arg(name="lambda")] = 0.3
    """--rerank: weight of the original distance."""
    multi_query: Flag = False
    """One query for each identity and camera, the mean of its images' features (Market-1501's come from gt_bbox)."""
    camera_pairs: Flag = False
    """Rank-1 and mAP from each camera to each other one."""
    single_shot: int = 0
    """So many random galleries of one image an identity, CUHK03's first protocol; 0 for none."""
    distances: Flag = False
    """Distances of right and wrong pairs, and thresholds for chosen rates of false matches."""
    leave_self_out: By | None = None
    """Of embeddings in files that are query and gallery at once: leave only a query's own image out of its ranking, the
    gallery image of its name or in its row. The rule about cameras does not hold then."""
    intervals: Flag = False
    """95 % intervals of all numbers over the people of the test set: whole identities are resampled, as queries of one
    person are not independent. With --rerank, and of a network's two embeddings, of their difference too."""
    figures: Path | None = None
    """Folder for figures (CMC, cameras, distances), a table of the first ten ranks of each query (ranks.csv) and, of a
    network, ranked lists and what makes images alike."""


@dataclass(frozen=True)
class Findings:
    """What was measured; None what was not asked for."""

    report: Report
    without_rerank: Report | None
    pairs: CameraPairs | None
    single_shot: SingleShot | None
    distances: Distributions | None
    intervals: dict[str, Interval] | None
    """By measure, of `report`."""
    less_plain: dict[str, Interval] | None
    """By measure, `report` less `without_rerank`."""
    self_out: SelfOut | None
    """The queries' own images, where these are left out."""
    query: Embeddings
    """The queries that were asked: with multi_query, means."""
    gallery: Embeddings
    cross_camera: bool
    notes: list[str]
    """What about the data makes the numbers mean something else than one would think."""


def run_evaluation(
    query: Embeddings, gallery: Embeddings, metric: Metric, cross_camera: bool, asked: Measures
) -> Findings:
    """Measures what is asked for.

    Raises:
        ValueError: As `evaluate` does, and for re-ranking that cannot be or was not asked for but set.
    """
    if not asked.rerank and Rerank(asked.k1, asked.k2, asked.weight) != Rerank():
        raise ValueError("--k1, --k2 and --lambda are of the re-ranking; give --rerank too.")
    if not 0 <= asked.single_shot <= 10_000:
        raise ValueError(f"--single-shot {asked.single_shot}: must be from 0 to 10000 draws")
    rerank = Rerank(asked.k1, asked.k2, asked.weight) if asked.rerank else None
    self_out = _self_out(query, gallery, asked) if asked.leave_self_out else None
    if self_out:
        query, gallery, cross_camera = self_out.query, self_out.gallery, True
    if asked.multi_query:
        query = multi_query(query, metric)
    protocol = metric, cross_camera
    plain = evaluate(query, gallery, *protocol)
    report = evaluate(query, gallery, *protocol, rerank=rerank) if rerank else plain
    single = None
    if asked.single_shot:
        one_set = is_one_set(query, gallery)
        single = evaluate_single_shot(query, gallery, *protocol, repeats=asked.single_shot, one_set=one_set)
    drawn = asked.figures is not None
    return Findings(
        report,
        plain if rerank else None,
        camera_pairs(report, query, gallery) if asked.camera_pairs or (drawn and not self_out) else None,
        single,
        distance_distributions(query, gallery, *protocol) if asked.distances or drawn else None,
        report_intervals(report, query.pids) if asked.intervals else None,
        report_differences(report, plain, query.pids) if asked.intervals and rerank else None,
        self_out,
        query,
        gallery,
        cross_camera,
        doubts(plain, query, gallery, rerank),
    )


def _self_out(query: Embeddings, gallery: Embeddings, asked: Measures) -> SelfOut:
    """Returns the sets with each query's own image known; refuses what then means nothing."""
    for option, given in (("--multi-query", asked.multi_query), ("--camera-pairs", asked.camera_pairs)):
        if given:
            raise ValueError(f"{option} is about cameras, and --leave-self-out knows none; leave one of them out.")
    return leave_self_out(query, gallery, asked.leave_self_out or "name")


def text(findings: Findings) -> str:
    """Returns all of it, for people."""
    intervals = _interval_text(findings) if findings.intervals else None
    differences = difference_text("re-ranked less as they were", findings.less_plain) if findings.less_plain else None
    ranked: list[object] = [findings.self_out, findings.without_rerank, findings.report, intervals, differences]
    parts = [*ranked, findings.single_shot, findings.pairs, findings.distances]
    return "\n\n".join(str(part) for part in parts if part is not None)


def less_pooled(findings: Mapping[str, Findings]) -> dict[str, Interval] | None:
    """Returns the output of an Eigenlayer less its input by measure, with intervals, where they were asked for."""
    pair = [findings.get(name) for name in ("embedding", "pooled")]
    if not pair[0] or not pair[1] or not pair[0].intervals:
        return None
    return report_differences(pair[0].report, pair[1].report, pair[0].query.pids)


def difference_text(what: str, differences: Mapping[str, Interval]) -> str:
    """Returns differences with their intervals, for people."""
    lines = [f"{what}, with 95 % intervals over the people of the test set, the same ones resampled for both:"]
    return "\n".join(lines + [f"  {name:<11}{_signed(each)}" for name, each in differences.items()])


def _signed(each: Interval) -> str:
    value, low, high = (f"{100 * number:+6.2f}" for number in each)
    return f"{value} %  one person, no interval" if isnan(each.low) else f"{value} %  {low} to {high}"


def _interval_text(findings: Findings) -> str:
    people = len(np.unique(findings.query.pids[findings.report.first_hit > 0]))
    if people < 2:
        return "no intervals: all valid queries are of one person, who says nothing of others"
    doubt = f" ({caution(people)})" if caution(people) else ""
    lines = [f"95 % intervals over the {people} people of the test set, whole identities resampled{doubt}:"]
    for name, each in (findings.intervals or {}).items():
        alike = "  all people alike: how far others would be off is not known" if each.low == each.high else ""
        lines.append(f"  {name:<11}{100 * each.low:6.2f} to {100 * each.high:6.2f} %{alike}")
    return "\n".join(lines)


def as_json(findings: Findings) -> dict[str, Any]:
    """Returns all of it, for programs; the numbers at the top are those of the protocol asked for."""
    values: dict[str, Any] = findings.report.metrics() | {"valid_queries": findings.report.valid_queries}
    if findings.self_out:
        own = findings.self_out
        values["leave_self_out"] = {"by": own.by, "queries_in_gallery": own.found, "without_another": own.alone}
    if (rerank := findings.report.rerank) and findings.without_rerank:
        values["rerank"] = {"k1": rerank.k1, "k2": rerank.k2, "lambda": rerank.weight}
        values["without_rerank"] = findings.without_rerank.metrics()
    if findings.single_shot:
        values["single_shot"] = findings.single_shot.metrics() | {"repeats": findings.single_shot.repeats}
    if findings.pairs:
        values["camera_pairs"] = findings.pairs.to_json()
    if findings.distances:
        values["distances"] = findings.distances.to_json()
    if findings.intervals:
        values["intervals"] = {name: _ends(each) for name, each in findings.intervals.items()}
    if findings.less_plain:
        values["less_without_rerank"] = differences_json(findings.less_plain)
    return values


def differences_json(differences: Mapping[str, Interval]) -> dict[str, Any]:
    """Returns differences by measure, with their intervals, for programs."""
    return {name: {"difference": each.value, "interval": _ends(each)} for name, each in differences.items()}


def _ends(each: Interval) -> list[float] | None:
    """Returns the ends of an interval; of one person there is none: null, as JSON knows no NaN."""
    return None if isnan(each.low) else [each.low, each.high]


def draw(findings: Findings, folder: Path) -> list[Path]:
    """Draws CMC, cameras and distances, and writes the table of ranks, by distance.

    Returns:
        The files.
    """
    # matplotlib takes half a second to import.
    from svdnet_jax.reporting.figures.distances import distributions
    from svdnet_jax.reporting.figures.retrieval import camera_pairs as pairs_figure
    from svdnet_jax.reporting.figures.retrieval import cmc
    from svdnet_jax.reporting.figures.style import save

    curves = {"as they are": findings.without_rerank, "re-ranked": findings.report}
    if not findings.without_rerank:
        curves = {findings.report.metric: findings.report}
    figures = {"cmc": cmc({name: report for name, report in curves.items() if report})}
    if findings.pairs:
        figures["camera_pairs"] = pairs_figure(findings.pairs)
    if findings.distances:
        figures["distances"] = distributions({f"{findings.report.metric} distance": findings.distances})
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    sides = findings.query, findings.gallery
    ranks = first_ranks(*sides, SHOWN, findings.report.metric, findings.cross_camera)
    write_ranks(folder / RANKS, *sides, ranks)
    return [*(folder / f"{name}.png" for name in figures), folder / RANKS]


def draw_pictures(findings: Findings, kind: str, dataset: "Dataset", embedder: "Embedder", folder: Path) -> list[Path]:
    """Draws ranked lists, and what makes images alike, of a data set that a network has embedded.

    Args:
        findings: Of one of its embeddings, whose queries are those of the data set.
        kind: Which it is.
        dataset: Its images.
        embedder: The network.
        folder: Where to.

    Returns:
        The files.
    """
    from svdnet_jax.reporting.figures.style import save
    from svdnet_jax.runs.pictures import Ranked, alike_figure, ranked_figure

    plain = findings.without_rerank or findings.report
    ranked = Ranked(dataset, findings.query, findings.gallery, plain.ap, plain.metric, findings.cross_camera)
    drawn = ranked_figure(ranked), alike_figure(ranked, embedder.apply_pixelwise, kind)
    paths = []
    for name, figure in zip(PICTURES, drawn, strict=True):
        if figure is not None:
            save(figure, folder / f"{name}.png")
            paths.append(folder / f"{name}.png")
    return paths
