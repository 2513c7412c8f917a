"""How often the bounds of realised performance hold, on simulated binary labels.

.venv/bin/python bench/performance/coverage.py [--samples 600]

Prints share of positives, metric, rows, samples that bear an interval, and the shares in which the lower
and the upper bound hold; each bound should in 95%.
"""

import argparse

import numpy as np

from retrain_assets.performance.realised import realised
from retrain_assets.training.metrics import get_metric

METRICS = ("roc_auc", "accuracy", "log_loss", "brier", "f1", "average_precision")


def sample(rng: np.random.Generator, n: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and calibrated scores of a model with a ROC AUC of 0.8."""
    truth = (rng.random(n) < share).astype(int)
    signal = rng.normal(1.2 * truth, 1)
    return truth, 1 / (1 + np.exp(-(1.2 * signal - 0.72 + np.log(share / (1 - share)))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=600)
    samples = parser.parse_args().samples
    rng = np.random.default_rng(1)
    for share in (0.5, 0.1):
        everybody = sample(rng, 2_000_000, share)
        for metric in METRICS:
            real = get_metric(metric).evaluate(*everybody)
            for n in (100, 400, 2000):
                drawn = (realised(metric, *sample(rng, n, share)) for _ in range(samples))
                found = [one for one in drawn if one.decided]
                low = np.mean([one.low <= real for one in found])
                high = np.mean([one.high >= real for one in found])
                print(f"{share} {metric} {n} {len(found)} {low:.3f} {high:.3f}")


if __name__ == "__main__":
    main()
