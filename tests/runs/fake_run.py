"""The log of a run that never was, for the tests of svdnet_jax.reporting."""

import math

RANKS = ("rank1", "rank5", "rank10", "rank20")


def measures(rank1, mean_ap):
    ranks = {name: 1 - (1 - rank1) * 0.5**index for index, name in enumerate(RANKS)}
    return ranks | {"mAP": mean_ap, "mAP_market": mean_ap - 0.012, "mINP": mean_ap / 2}


def fake_run(rounds=4, method="us", base=900, phase=90, every=30, evaluate_restraint=True):
    """Make a plausible log: loss falls, S(W) jumps to 1 at each decorrelation and drops after."""
    control = method == "none"
    records = [{"event": "start", "dataset": "drawn", "seed": 0}]
    step, correlation, loss = 0, 0.9, 4.8
    gain = 0.002 if control else 0.008

    def retrieval(progress):
        return {
            "embedding": measures(0.63 + gain * progress, 0.504 + gain / 2 * progress),
            "pooled": measures(0.60 + 2 * gain * progress, 0.48 + gain * progress),
        }

    def train(kind, number, steps, floor, target):
        nonlocal step, correlation, loss
        for done in range(every, steps + 1, every):
            step += every
            loss = floor + (loss - floor) * math.exp(-every / (0.2 * steps)) + 0.01 * (done % 4)
            if kind != "restraint" or control:
                correlation = target + (correlation - target) * math.exp(-every / (0.2 * steps))
            rate = (0.1 if kind == "base" else 0.005) / (10 if kind == "base" and done > 500 else 1)
            records.append(
                {"event": "step", "phase": kind, "round": number, "step": step, "loss": loss}
                | {"accuracy": math.exp(-loss), "learning_rate": rate}
                | {"correlation": correlation, "images_per_second": 600.0 + done % 7}
            )
        measured = {"loss": loss * 0.6, "accuracy": math.exp(-loss * 0.6)}
        measured |= retrieval(number - (kind == "restraint") / 2)
        records.append(
            {"event": "phase", "phase": kind, "round": number, "step": step}
            | {"correlation": correlation, "seconds": 42.5}
            | (measured if evaluate_restraint or kind != "restraint" else {})
        )

    train("base", 0, base, 0.12, 0.04)
    for number in range(1, rounds + 1):
        before, low = correlation, loss * 0.6
        after, high = (before, low) if control else (1.0, low + 0.9 / number)
        records.append(
            {"event": "decorrelate", "round": number, "step": step, "method": method}
            | {"correlation": {"before": before, "after": after}}
            | {"loss": {"before": low, "after": high}}
            | retrieval(number - 1)
        )
        correlation, loss = after, loss if control else high * 1.4
        train("restraint", number, phase, 0.15, 0.04)
        train("relaxation", number, phase, 0.10, 0.04 if control else 0.11 * number)
    records.append({"event": "end", "step": step, "stopped": "maximum", "seconds": 241.3})
    return records
