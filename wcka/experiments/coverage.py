"""Whether intervals of a correlation hold the truth, by simulation from a table.

The pairs of a grid that differ in the seed share starts, networks and probes. How much
of the variance of similarity and of agreement comes from each of these is estimated
from the table itself, by the method of moments. New grids of the same design are then
drawn from these components, whose correlation is known, and each kind of interval is
asked whether it holds it.

All pairs of the networks of one kind (architecture, strategy and epoch) are a round
robin: each network adds an effect to all of its pairs. The estimates are those of
Warner, Kenny & Stoto (1979, J. Pers. Soc. Psychol. 37:1742), for pairs without an
order.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from . import crossed, statistics

# Levels of units whose effects a pair has, and of how many units of each
_UNITS_OF_PAIR = {
    "start": 2, "network": 2, "pair of starts": 1, "pair of networks": 1}


# ---------------------------------------------------------------------------- the grid


class _Grid(NamedTuple):
    """The pairs of a grid that differ in the seed, with numbered units."""

    similarity: np.ndarray  # (pairs,)
    agreement: np.ndarray  # (pairs, probes)
    kind: np.ndarray  # (pairs,), numbers
    architecture_of_kind: np.ndarray  # (kinds,), numbers
    units: dict[str, np.ndarray]  # by level, numbers (pairs, 1 or 2)

    @property
    def n_kinds(self) -> int:
        return len(self.architecture_of_kind)

    @property
    def n_probes(self) -> int:
        return self.agreement.shape[1]


def _seed_grid(
    rows: pd.DataFrame, members: pd.DataFrame, measure: str, target: str
) -> _Grid:
    """Collect the pairs that differ in the seed from a table of pairs and probes."""
    rows = rows[rows.differs == "seed"]
    if not np.isfinite(rows[[measure, target]].to_numpy(float)).all():
        raise ValueError("some numbers are not finite; drop and count them first")
    networks, first, agreement = _one_row_per_pair(rows, members, target)
    kind_of_network = members.groupby(
        ["architecture", "strategy", "epoch"], sort=False).ngroup().to_numpy()
    kind = _numbered(kind_of_network[networks[:, 0]])
    starts = _numbered(pd.factorize(members.start)[0][networks])
    _check_round_robins(kind, starts)
    architecture_of_kind = np.zeros(kind.max() + 1, int)
    architecture_of_kind[kind] = pd.factorize(
        members.architecture)[0][networks[:, 0]]
    first_start, second_start = np.sort(starts, axis=1).T
    pair_of_starts = _numbered(first_start * (starts.max() + 1) + second_start)
    units = {
        "start": starts,
        "network": _numbered(networks),
        "pair of starts": pair_of_starts[:, None],
        "pair of networks": np.arange(len(networks))[:, None],
    }
    similarity = rows[measure].to_numpy(float)[first]
    return _Grid(similarity, agreement, kind, architecture_of_kind, units)


def _one_row_per_pair(
    rows: pd.DataFrame, members: pd.DataFrame, target: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the networks of each pair, its first row, and its target by probe.

    Networks (pairs, 2) are numbered as in `members`, the lower number first.
    """
    number = pd.Series(np.arange(len(members)), index=members.model.astype(str))
    a = number[rows["a"].astype(str)].to_numpy()
    b = number[rows["b"].astype(str)].to_numpy()
    pairs, first, pair = np.unique(
        np.minimum(a, b) * len(members) + np.maximum(a, b),
        return_index=True, return_inverse=True)
    probes, probe = np.unique(rows["probe"].astype(str), return_inverse=True)
    by_probe = np.full((len(pairs), len(probes)), np.nan)
    by_probe[pair, probe] = rows[target]
    if len(rows) != by_probe.size or np.isnan(by_probe).any():
        raise ValueError(
            f"wanted each of {len(pairs)} pairs once on each of {len(probes)} probes, "
            f"got {len(rows)} rows")
    networks = np.stack(np.divmod(pairs, len(members)), axis=1)
    return networks, first, by_probe


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Return numbers without gaps in place of labels, in the same shape."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _check_round_robins(kind: np.ndarray, starts: np.ndarray) -> None:
    """Refuse kinds that miss pairs of their networks, and tables of two networks."""
    largest = 0
    for number in np.unique(kind):
        pairs = starts[kind == number]
        n = len(np.unique(pairs))
        if len(pairs) != n * (n - 1) // 2:
            raise ValueError(
                f"wanted all {n * (n - 1) // 2} pairs of the {n} networks of a kind, "
                f"got {len(pairs)}")
        largest = max(largest, n)
    if largest < 3:
        raise ValueError(
            f"wanted at least three networks of one kind, got at most {largest}")


# ------------------------------------------------------------------------- components


def _components(grid: _Grid) -> pd.DataFrame:
    """Estimate where the variances of similarity and of agreement come from.

    Similarity is the mean of the pair's kind, which is fixed, plus effects of both
    starts, of both networks, of the pair of starts (the same for all strategies and
    epochs), and of the pair of networks. Agreement has such effects on all probes,
    which correlate with those on similarity, and others on each probe alone; to these
    add effects of the probe on all kinds and on each.

    Estimates are unbiased, so small ones may be negative. Where no kind has four
    networks, effects of pairs cannot be told from those of their members, and count as
    theirs. With one kind per architecture, effects of networks count as those of
    starts; with one probe, effects on it alone count as those on all.

    Rows are sources; similarity and agreement are what one adds to the variance of a
    row, covariance what it adds to the covariance of the two.
    """
    levels = _levels(grid)
    of_probes = {level: moments.on_a_probe for level, moments in levels.items()}
    probe, kind_on_a_probe = _probe_components(grid, of_probes)
    x, y = _kind_means(grid)
    table = {"kind": (x.var(), y.var(), (x * y).mean() - x.mean() * y.mean())}
    for level, count in _UNITS_OF_PAIR.items():
        moments = levels[level]
        table[level] = (
            count * moments.similarity, count * moments.agreement,
            count * moments.covariance)
    table["probe"] = (0, probe, 0)
    table["kind on a probe"] = (0, kind_on_a_probe, 0)
    for level, count in _UNITS_OF_PAIR.items():
        table[f"{level} on a probe"] = (0, count * of_probes[level], 0)
    return pd.DataFrame.from_dict(
        table, orient="index", columns=["similarity", "agreement", "covariance"],
        dtype=float)


class _Moments(NamedTuple):
    """Variances of the effects of one unit, and the covariance of those on both."""

    similarity: float
    covariance: float
    agreement: float
    on_a_probe: float


def _kind_means(grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean similarity and agreement of each pair's kind: (pairs,) each."""
    counts = np.bincount(grid.kind)
    x = np.bincount(grid.kind, grid.similarity) / counts
    y = np.bincount(grid.kind, grid.agreement.mean(1)) / counts
    return x[grid.kind], y[grid.kind]


def _levels(grid: _Grid) -> dict[str, _Moments]:
    """Return the variances of the effects of starts, networks and pairs.

    Within a kind they are those of its networks, and of the starts that these come
    from. What two kinds have in common is that of the starts.
    """
    mean = grid.agreement.mean(1, keepdims=True)
    # (pairs, 2 + probes): similarity, mean agreement, and deviations from that
    columns = np.column_stack([grid.similarity, mean, grid.agreement - mean])
    within, between = _Sums(), _Sums()
    for architecture in range(grid.architecture_of_kind.max() + 1):
        squares = []
        for kind in np.flatnonzero(grid.architecture_of_kind == architecture).tolist():
            squares.append(_square(grid, kind, columns))
        for i, one in enumerate(squares):
            within.add(one, one)
            for other in squares[:i]:
                between.add(one, other)
    of_nodes, of_pairs = within.moments()
    if between.node_df:
        of_starts, of_start_pairs = between.moments()
    else:  # one kind per architecture
        of_starts, of_start_pairs = of_nodes, of_pairs
    n_probes = grid.n_probes
    moments = {
        "start": of_starts, "network": of_nodes - of_starts,
        "pair of starts": of_start_pairs,
        "pair of networks": of_pairs - of_start_pairs}
    levels = {}
    for level, (similarity, covariance, agreement, on_a_probe) in moments.items():
        # The mean over probes contains a part of the effects on each.
        levels[level] = _Moments(
            similarity, covariance, agreement - on_a_probe / n_probes, on_a_probe)
    return levels


def _square(
    grid: _Grid, kind: int, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a kind's starts (n,), and the values of its pairs (n, n, columns)."""
    is_kind = grid.kind == kind
    starts, sides = np.unique(grid.units["start"][is_kind], return_inverse=True)
    i, j = sides.reshape(-1, 2).T
    values = np.zeros((len(starts), len(starts), columns.shape[1]))
    values[i, j] = values[j, i] = columns[is_kind]
    return starts, values


class _Sums:
    """Sums of products of the effects of nodes and of pairs, over round robins."""

    def __init__(self):
        self.of_nodes = np.zeros(4)
        self.of_pairs = np.zeros(4)
        self.node_df = self.pair_df = 0
        self.noise = 0.0  # how often the nodes' sum contains the pairs' variance

    def add(self, one: tuple, other: tuple) -> None:
        """Add the products of two kinds' effects, of the starts that both have."""
        starts, rows, columns = np.intersect1d(one[0], other[0], return_indices=True)
        n = len(starts)
        if n < 3:
            return
        node, pair = _round_robin(one[1][np.ix_(rows, rows)])
        other_node, other_pair = node, pair
        if other is not one:
            other_node, other_pair = _round_robin(other[1][np.ix_(columns, columns)])
        self.of_nodes += _products(node, other_node)
        self.node_df += n - 1
        if n > 3:  # three nodes have as many effects as pairs
            self.of_pairs += _products(pair, other_pair)
            self.pair_df += n * (n - 3) // 2
        self.noise += (n - 1) / (n - 2)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the moments of nodes and of pairs, (4,) each, as in ``_Moments``."""
        of_pairs = self.of_pairs / max(self.pair_df, 1)
        of_nodes = (self.of_nodes - self.noise * of_pairs) / self.node_df
        return of_nodes, of_pairs


def _round_robin(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return effects of nodes (n, columns), and what they leave of each pair.

    A node's mean contains the effects of all others, too; the factor undoes that.
    """
    n = len(values)
    of_node = values.sum(1) / (n - 1)  # the diagonal is zero
    mean = of_node.mean(0)
    node = (n - 1) / (n - 2) * (of_node - mean)
    i, j = np.triu_indices(n, 1)
    return node, values[i, j] - mean - node[i] - node[j]


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the sums of products of effects (units, 2 + probes), as in ``_Moments``.

    Those on single probes are summed over probes, and divided by their degrees of
    freedom.
    """
    x, y = one[:, 0], one[:, 1]
    other_x, other_y = other[:, 0], other[:, 1]
    n_probes = one.shape[1] - 2
    on_a_probe = (one[:, 2:] * other[:, 2:]).sum() / max(n_probes - 1, 1)
    return np.array([
        x @ other_x, (x @ other_y + y @ other_x) / 2, y @ other_y, on_a_probe])


def _probe_components(
    grid: _Grid, on_a_probe: dict[str, float]
) -> tuple[float, float]:
    """Return the variances of the effects of probes, and of probes on a kind.

    The means of two kinds vary together from probe to probe by the probe's effect, and
    by those of starts that both have.
    """
    n_probes = grid.n_probes
    if n_probes == 1:
        return 0.0, 0.0
    n_kinds = grid.n_kinds
    share = 1 / np.bincount(grid.kind)[grid.kind]  # of each pair in its kind's mean
    in_kind = np.zeros((n_kinds, len(grid.kind)))  # (kinds, pairs)
    in_kind[grid.kind, np.arange(len(grid.kind))] = share
    covariance = np.atleast_2d(np.cov(in_kind @ grid.agreement))  # (kinds, kinds)
    for level, units in grid.units.items():
        weights = np.zeros((n_kinds, units.max() + 1))
        for side in units.T:
            np.add.at(weights, (grid.kind, side), share)
        covariance -= on_a_probe[level] * weights @ weights.T
    if n_kinds == 1:
        return float(covariance[0, 0]), 0.0
    variance = covariance.diagonal().mean()
    shared = (covariance.sum() - covariance.trace()) / (n_kinds * (n_kinds - 1))
    return float(shared), float(variance - shared)


def _shares(grid: _Grid) -> pd.DataFrame:
    """Estimate shares of the variances of similarity and of agreement, by source.

    Similarity and agreement add up to 1; negative estimates count as zero. Covariances
    are in units of both standard deviations, and at most what the two variances allow:
    they add up to the correlation in grids with these components.
    """
    components = _components(grid)
    variances = components[["similarity", "agreement"]].clip(lower=0)
    total = variances.sum()
    for name in total.index[total == 0]:
        raise ValueError(f"{name} does not vary among pairs that differ in the seed")
    largest = np.sqrt(variances.prod(axis=1))
    covariance = components.covariance.clip(-largest, largest)
    return (variances / total).assign(covariance=covariance / np.sqrt(total.prod()))


# ------------------------------------------------------------------------- simulation


def simulate(
    rows: pd.DataFrame, members: pd.DataFrame, measure: str = "wcka",
    target: str = "agreement", draws: int = 200, seed: int = 0,
) -> pd.DataFrame:
    """Simulate how often 95 % intervals of r hold the truth.

    Grids of the same pairs and as many probes are drawn from the components of variance
    that are estimated from the table. The truth is their correlation in a grid of the
    same kinds with infinitely many starts and probes.

    Effects are normal, and vary as much in one kind or on one probe as in another.
    Where a few odd networks or probes carry a correlation, intervals hold the truth
    less often than here.

    Parameters
    ----------
    rows, members : DataFrame
        As ``benchmark.grid`` returns them. Of the rows those that differ in the seed
        are taken. Networks may have been left out, with all of their pairs.
    measure, target : str
        The columns that are correlated. The measure has one value per pair, the target
        one per pair and probe.
    draws : int
        Number of grids.
    seed : int
        Of the effects that are drawn.

    Returns
    -------
    DataFrame
        One row for intervals that count rows as independent, those of
        ``statistics.correlation``, and one for those over starts and probes, of
        ``crossed.correlations``. Coverage is the share of the grids whose interval
        holds the truth, and error its Monte Carlo error, which is not zero for a share
        of 0 or 1 (Agresti & Coull 1998). ``attrs["r"]`` is the truth.

    Raises
    ------
    ValueError
        For numbers that are not finite or do not vary, a pair that misses a probe, a
        kind that misses pairs of its networks, or no kind with three networks.

    Examples
    --------
    >>> a, b = np.triu_indices(8, 1)
    >>> members = pd.DataFrame({"model": range(8), "architecture": "1 × 8", "epoch": 1,
    ...                         "strategy": "standard", "start": range(8)})
    >>> rows = pd.DataFrame({"differs": "seed", "a": a, "b": b, "probe": "clean",
    ...                      "agreement": a + b, "wcka": np.sin(a) + np.sin(b)})
    >>> simulated = simulate(rows, members, draws=50)
    >>> simulated.index.tolist()
    ['rows', 'starts and probes']
    >>> rows_hold, starts_hold = simulated.coverage
    >>> bool(rows_hold < 0.8 < starts_hold)
    True
    """
    grid = _seed_grid(rows, members, measure, target)
    shares = _shares(grid)
    truth = float(shares.covariance.sum())
    start_a, start_b = np.repeat(grid.units["start"].T, grid.n_probes, axis=1)
    probe = np.tile(np.arange(grid.n_probes), len(grid.kind))  # (rows,)
    design = crossed.Design(start_a, start_b, probe, _architectures(grid))
    means = _standard_kind_means(grid, shares)
    by_source = shares.to_dict("index")
    rng = np.random.default_rng(seed)
    held = np.zeros(2)
    for _ in range(draws):
        x, y = _draw(rng, grid, by_source, means)
        x = np.repeat(x, grid.n_probes)
        y = y.ravel()
        by_rows = statistics.correlation(x, y)
        z, _ = crossed.correlations(design, y, pd.DataFrame({"x": x}), None)
        held[0] += by_rows.low <= truth <= by_rows.high
        held[1] += np.tanh(z["x"].low) <= truth <= np.tanh(z["x"].high)
    adjusted = (held + 2) / (draws + 4)
    simulated = pd.DataFrame({
        "coverage": held / draws,
        "error": np.sqrt(adjusted * (1 - adjusted) / (draws + 4)),
    }, index=["rows", "starts and probes"])
    simulated.attrs["r"] = truth
    return simulated


def _architectures(grid: _Grid) -> dict[str, str]:
    """Return the architecture of each start, by their numbers as names."""
    architectures = grid.architecture_of_kind[grid.kind].astype(str)
    names = grid.units["start"].astype(str)  # (pairs, 2)
    return dict(zip(names.T.ravel(), np.tile(architectures, 2)))


def _standard_kind_means(
    grid: _Grid, shares: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of each pair's kind, (pairs,) each, in units of the shares."""
    means = []
    for values, share in zip(_kind_means(grid), shares.loc["kind"]):
        deviations = values - values.mean()
        spread = deviations.std()
        if spread > 0:  # there are several kinds
            deviations *= np.sqrt(share) / spread
        means.append(deviations)
    return means[0], means[1]


def _draw(
    rng: np.random.Generator, grid: _Grid, shares: dict[str, dict[str, float]],
    kind_means: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw similarity (pairs,) and agreement (pairs, probes), of variance 1 each.

    Shares are by source, then by column of ``_shares``.
    """
    on_kinds = rng.standard_normal((grid.n_kinds, grid.n_probes))
    on_kinds *= np.sqrt(shares["kind on a probe"]["agreement"])
    on_all = rng.standard_normal(grid.n_probes)
    on_kinds += np.sqrt(shares["probe"]["agreement"]) * on_all
    x = kind_means[0].copy()
    y = kind_means[1][:, None] + on_kinds[grid.kind]  # (pairs, probes)
    for level, units in grid.units.items():
        count = units.shape[1]
        n_units = units.max() + 1
        on_x, on_y = rng.standard_normal((2, n_units))
        on_x, on_y = _with_moments(on_x, on_y, **shares[level])
        on_probes = rng.standard_normal((n_units, grid.n_probes))
        on_probes *= np.sqrt(shares[f"{level} on a probe"]["agreement"])
        effects = on_y[:, None] + on_probes  # (units, probes)
        for side in units.T:
            x += on_x[side] / np.sqrt(count)
            y += effects[side] / np.sqrt(count)
    return x, y


def _with_moments(
    first: np.ndarray, second: np.ndarray, similarity: float, agreement: float,
    covariance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return standard normal numbers with these variances and this covariance."""
    sd = np.sqrt(similarity)
    slope = covariance / sd if sd else 0.0
    rest = np.sqrt(max(agreement - slope**2, 0))
    return sd * first, slope * first + rest * second
