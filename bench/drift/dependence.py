"""Power against a change of correlation alone, and coverage of the classifier's interval.

    python bench/drift/dependence.py [--pairs 40]

Each pair is two samples of 10 normal columns, n rows a side, whose columns have the same distributions
one by one. Share of pairs that each method calls different at alpha 0.01: PCA reconstruction (error
beyond the components that hold 65% of the variance of one half of the reference, z-test against the
other half), maximum mean discrepancy (Gaussian kernel of median bandwidth by 200 random Fourier
features, 200 permutations), and the two that `drift` has. Coverage: share of pairs without any change
whose 95% interval of the AUC holds 0.5, with and without the correction for shared training rows.
"""

import argparse
from math import sqrt

import numpy as np

from retrain_assets.drift.correlation import correlation_changes
from retrain_assets.drift.multivariate import FOLDS, separability

CHANGES = {
    "none": (0.0, 0.0),
    "0 to 0.3": (0.0, 0.3),
    "0.3 to 0": (0.3, 0.0),
    "0.8 to 0.5": (0.8, 0.5),
    "0 to 0.8": (0.0, 0.8),
    "0.8 to 0": (0.8, 0.0),
}


def sample(rng, n, rho, k=10):
    x = rng.normal(size=(n, k))
    x[:, 1] = rho * x[:, 0] + sqrt(1 - rho**2) * x[:, 1]
    return x


def reconstruction(reference, current):
    centre, scale = reference.mean(axis=0), reference.std(axis=0)
    a, b = (reference - centre) / scale, (current - centre) / scale
    fitted, held = a[: len(a) // 2], a[len(a) // 2 :]
    values, vectors = np.linalg.eigh(np.cov(fitted.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = vectors[:, : int(np.searchsorted(np.cumsum(values) / values.sum(), 0.65)) + 1]
    errors = [np.linalg.norm(x - x @ kept @ kept.T, axis=1) for x in (held, b)]
    se = sqrt(sum(e.var(ddof=1) / len(e) for e in errors))
    return abs(errors[0].mean() - errors[1].mean()) / se > 2.576


def discrepancy(rng, reference, current, features=200, permutations=200):
    x = np.vstack([reference, current])
    some = x[rng.choice(len(x), 400, replace=False)]
    distances = np.linalg.norm(some[:, None] - some[None], axis=-1)
    waves = rng.normal(size=(x.shape[1], features)) / np.median(distances[distances > 0])
    phi = np.cos(x @ waves + rng.uniform(0, 2 * np.pi, features))
    n, total = len(reference), phi.sum(axis=0)

    def size(rows):
        part = phi[rows].sum(axis=0)
        return np.sum((part / n - (total - part) / (len(x) - n)) ** 2)

    found = size(np.arange(n))
    above = sum(size(rng.permutation(len(x))[:n]) >= found for _ in range(permutations))
    return (1 + above) / (1 + permutations) <= 0.01


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=40)
    pairs = parser.parse_args().pairs
    print("change         n   reconstruction   MMD   correlations   classifier")
    zs = {}
    for change, rhos in CHANGES.items():
        for n in (500, 2000):
            hits = np.zeros(4)
            for pair in range(pairs):
                rng = np.random.default_rng([pair, n])
                a, b = (sample(rng, n, rho) for rho in rhos)
                auc, se, _ = separability(np.vstack([a, b]), np.repeat([0, 1], n))
                names = [str(i) for i in range(a.shape[1])]
                hits += [
                    reconstruction(a, b),
                    discrepancy(rng, a, b),
                    bool(correlation_changes(a, b, names)),
                    (auc - 0.5) / se > 2.326,
                ]
                if change == "none":
                    zs.setdefault(n, []).append((auc - 0.5) / se)
            share = hits / pairs
            print(
                f"{change:11}{n:5}{share[0]:17.2f}{share[1]:6.2f}{share[2]:15.2f}{share[3]:13.2f}",
                flush=True,
            )
    wider = sqrt(1 + FOLDS / (FOLDS - 1))
    for n, found in zs.items():
        z = np.abs(found)
        print(
            f"coverage at {n}: {np.mean(z < 1.96):.2f}, without correction {np.mean(z * wider < 1.96):.2f}"
        )


if __name__ == "__main__":
    main()
