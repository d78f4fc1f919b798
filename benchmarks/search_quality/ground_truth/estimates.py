"""True accuracies of networks, estimated from a few noisy trainings of each.

The best of hundreds of noisy means is partly the luckiest one. So the means are not taken as they are. The model is an
analysis of variance with random effects, in percentage points:

    accuracy of training j of network i = true_i + noise_ij,                           noise_ij ~ N(0, noise²)
    true_i = mean + sum over layers l of main_l(c_il)
                  + sum over pairs of layers (l, m) of pair_lm(c_il, c_im) + own_i

where c_il is the candidate of layer l, and main, pair and own are normal with mean zero and a variance each. The
variances of main, pair and noise maximise the likelihood. That of `own`, what no pair of layers explains, is
integrated out over a grid, because its likelihood is flat near zero and a value of zero would claim too much.
Reference: Searle, Casella and McCulloch, Variance Components (1992), chapters 3 and 7.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]

DRAWS = 4000
OWN = np.linspace(0.0, 1.0, 11)  # standard deviations of `own` in units of the noise, all equally likely a priori
_FLAT = 100.0  # standard deviation of the mean, in points: anything is possible
_SMALLEST, _LARGEST = np.log(1e-4), np.log(1e4)  # variances of main and pair effects, in points²


@dataclass(frozen=True)
class Trainings:
    """What was measured, in percentage points.

    Attributes:
        choices: Candidate of each layer, for each network.
        means: Mean accuracy of each network over its trainings, shape (networks,).
        counts: Number of trainings of each network, at least one, shape (networks,).
        squares: Sum of squared differences between trainings and the mean of their network.
        freedom: Degrees of freedom of `squares`: trainings less networks.
    """

    choices: Sequence[Sequence[str]]
    means: Floats
    counts: Floats
    squares: float
    freedom: int


@dataclass(frozen=True)
class Estimates:
    """The distribution of the true accuracies given the trainings, in percentage points.

    Attributes:
        draws: True accuracies drawn from it, shape (draws, networks).
        noise: Standard deviation of a single training.
        deviations: Standard deviation of the effects: `main`, `pair` and `own`.
    """

    draws: Floats
    noise: float
    deviations: dict[str, float]

    @property
    def accuracy(self) -> Floats:
        """Expected true accuracy of each network, shape (networks,)."""
        mean: Floats = self.draws.mean(0)
        return mean

    @property
    def error(self) -> Floats:
        """Standard deviation of the true accuracy of each network, shape (networks,)."""
        deviation: Floats = self.draws.std(0)
        return deviation

    def best(self, within: npt.NDArray[np.intp]) -> Floats:
        """True accuracy of the best of some networks in each draw, shape (draws,)."""
        best: Floats = self.draws[:, within].max(1)
        return best


def estimate(measured: Trainings, draws: int = DRAWS) -> Estimates:
    """Draw true accuracies from their distribution given the trainings.

    Raises:
        ValueError: No network was trained twice, so nothing is known about the noise.
    """
    if measured.freedom < 1:
        raise ValueError("no network has two trainings; train at least one network with two seeds")
    columns = design(measured.choices)
    fits = [fit(measured, columns, ratio) for ratio in OWN]
    likelihoods = np.array([found.log_likelihood for found in fits])
    weights = np.exp(likelihoods - likelihoods.max())
    weights /= weights.sum()
    shares = np.diff(np.rint(draws * np.cumsum(weights)).astype(int), prepend=0)
    generator = np.random.default_rng(0)
    drawn = [draw(measured, columns, found, n, generator) for found, n in zip(fits, shares, strict=True) if n]
    variances = np.array([(found.main, found.pair, found.own, found.noise) for found in fits])
    main, pair, own, noise = np.sqrt(weights @ variances)
    return Estimates(np.concatenate(drawn), float(noise), {"main": main, "pair": pair, "own": own})


@dataclass(frozen=True)
class Variances:
    """Variances of the effects and of a training, in points², and their log-likelihood up to a constant."""

    main: float
    pair: float
    own: float
    noise: float
    log_likelihood: float


@dataclass(frozen=True)
class Design:
    """Which effects each network has: the mean, its candidate of each layer, and of each pair of layers.

    Attributes:
        features: 1 where a network has an effect, shape (networks, effects).
        kinds: Kind of each effect: 0 mean, 1 main, 2 pair, shape (effects,).
    """

    features: Floats
    kinds: npt.NDArray[np.intp]

    def scaled(self, main: float, pair: float) -> Floats:
        """Features times the standard deviations of their effects."""
        scaled: Floats = self.features * np.array([_FLAT, np.sqrt(main), np.sqrt(pair)])[self.kinds]
        return scaled


def design(choices: Sequence[Sequence[str]]) -> Design:
    """The effects of some networks, given the candidates of their layers."""
    table = np.array([list(of) for of in choices])
    layers = range(table.shape[1])
    columns, kinds = [np.ones(len(table))], [0]
    for layer in layers:
        for name in np.unique(table[:, layer]):
            columns.append(table[:, layer] == name)
            kinds.append(1)
    for first, second in itertools.combinations(layers, 2):
        both = np.char.add(np.char.add(table[:, first], " "), table[:, second])
        for name in np.unique(both):
            columns.append(both == name)
            kinds.append(2)
    return Design(np.array(columns, dtype=np.float64).T, np.array(kinds))


def fit(measured: Trainings, columns: Design, ratio: float) -> Variances:
    """Variances that maximise the likelihood, if `own` has this standard deviation in units of the noise.

    The matrices have as many rows as there are effects, by the matrix determinant lemma and Woodbury's identity.
    """
    centred = measured.means - measured.means.mean()

    def lost(logarithms: Floats) -> float:
        main, pair, noise = np.exp(logarithms)
        variance = noise * (ratio**2 + 1 / measured.counts)
        scaled = columns.scaled(main, pair)
        factor = cholesky(np.eye(scaled.shape[1]) + scaled.T @ (scaled / variance[:, None]), lower=True)
        part = solve_triangular(factor, scaled.T @ (centred / variance), lower=True)
        quadratic = (centred**2 / variance).sum() - (part**2).sum()
        determinant = np.log(variance).sum() + 2 * np.log(np.diag(factor)).sum()
        within = measured.freedom * np.log(noise) + measured.squares / noise
        return float(0.5 * (quadratic + determinant + within))

    noise = max(measured.squares / measured.freedom, 1e-6)
    start = np.log([max(centred.var(), 1e-3), max(centred.var(), 1e-3) / 10, noise])
    bounds = [(_SMALLEST, _LARGEST)] * 2 + [(np.log(noise) - 3, np.log(noise) + 3)]
    found = minimize(lost, np.clip(start, *np.transpose(bounds)), method="L-BFGS-B", bounds=bounds)
    main, pair, noise = np.exp(found.x)
    return Variances(main, pair, noise * ratio**2, noise, -float(found.fun))


def draw(measured: Trainings, columns: Design, found: Variances, number: int, generator: np.random.Generator) -> Floats:
    """Draw true accuracies given the trainings and the variances, shape (number, networks)."""
    level = measured.means.mean()
    variance = found.own + found.noise / measured.counts
    scaled = columns.scaled(found.main, found.pair)
    factor = cholesky(np.eye(scaled.shape[1]) + scaled.T @ (scaled / variance[:, None]), lower=True)
    centre = solve_triangular(factor, scaled.T @ ((measured.means - level) / variance), lower=True)
    noise = generator.standard_normal((scaled.shape[1], number))
    effects = solve_triangular(factor, centre[:, None] + noise, lower=True, trans=1)
    explained = level + (scaled @ effects).T
    # What is left of a network's mean is partly `own` and partly noise.
    kept = found.own / variance
    own = kept * (measured.means - explained)
    deviation = np.sqrt(kept * found.noise / measured.counts)
    drawn: Floats = explained + own + deviation * generator.standard_normal(explained.shape)
    return drawn
