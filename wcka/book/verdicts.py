"""Rules by which a chapter's numbers become verdicts on the paper's claims."""

from collections.abc import Sequence

import pandas as pd

from ..measures.all_pairs import MEASURE_LABELS
from .claims import Claim, interval


def verdict(*holds: bool) -> str:
    """Verdict of a claim from its parts: all hold, none does, or some do."""
    return "holds" if all(holds) else "partly" if any(holds) else "fails"


# The functions below take what statistics.compare_by_factor returns, rows by factor and measure;
# `results` has such tables under "pearson" and "spearman", `rows` those of one factor.


def leads(results: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Correlations and wCKA's leads as text, with intervals over starts; Pearson, Spearman."""
    def written(measure: str, row: pd.Series) -> tuple[str, str]:
        lead = interval(row.difference, row["model difference low"], row["model difference high"],
                        "+.2f")
        return interval(row.r, row["model low"], row["model high"]), lead * (measure != "wcka")

    symbols = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}
    return pd.concat({symbols[method]: pd.DataFrame(
        [written(measure, row) for (_, measure), row in rows.iterrows()], rows.index,
        ["correlation", "wCKA's lead"]) for method, rows in results.items()}, axis=1).rename(
        MEASURE_LABELS, level="measure").rename_axis([None, None])


def surely(results: pd.DataFrame, sign: int) -> str:
    """By factor, which measures wCKA is ahead of (sign 1) or behind (-1), p < 0.05 over starts."""
    sure = results[(sign * results.difference > 0) & (results["p model"] < 0.05)]
    beaten = {factor: ", ".join(MEASURE_LABELS[m] for _, m in part.index)
              for factor, part in sure.groupby("differs", sort=False)}
    return "; ".join(f"{factor} (than {names})" for factor, names in beaten.items()) or "no factor"


def ahead(results: pd.DataFrame, rival: str, sure: bool) -> str:
    """Factors where a rival's correlation is above wCKA's, p < 0.05 over starts if `sure`."""
    rows = results.xs(rival, level="measure")
    which = rows.index[(rows.difference < 0) & ((rows["p model"] < 0.05) | (not sure))]
    return ", ".join(which) or "no factor"


def strongest(rows: pd.DataFrame) -> str:
    """Verdict of: wCKA has the highest correlation.

    It holds if it is ahead of all others significantly; partly, if it is ahead of all, but of some
    only significantly; it fails if one is significantly ahead of it; else it cannot be told.
    """
    ahead, sure = rows.drop("wcka").difference > 0, rows.drop("wcka")["p model"] < 0.05
    if (sure & ~ahead).any():
        return "fails"
    if not (ahead.all() and sure.any()):
        return "cannot be told"
    return "holds" if sure.all() else "partly"


def similar(*tables: pd.DataFrame, margin: float = 0.1) -> str:
    """Verdict of: wCKA does as well as the others, all differences within a margin."""
    differences = pd.concat(tables)[["model difference low", "model difference high"]].drop("wcka")
    low, high = differences.to_numpy().T
    if (low >= -margin).all() and (high <= margin).all():
        return "holds"
    return "fails" if ((high < -margin) | (low > margin)).any() else "cannot be told"


def found(rows: pd.DataFrame) -> str:
    """Correlations of all measures as text, with intervals over starts."""
    return ", ".join(f"{MEASURE_LABELS[m]} {interval(r.r, r['model low'], r['model high'])}"
                     for m, r in rows.iterrows())


def strongest_by_factor(where: str, results: dict[str, pd.DataFrame], factors: Sequence[str],
                        readings: dict[str, pd.DataFrame]) -> list[Claim]:
    """Claims that wCKA's correlation is the strongest, by Pearson's r and Spearman's rho.

    `results` under "pearson" and "spearman"; `readings`: by what they are, Pearson's r of measures
    by factors with another choice, without wCKA's where the choice leaves it as it is. What holds,
    but not in these, holds in part.
    """
    rows = []
    for method, result in results.items():
        for factor in factors:
            said, judged = found(result.loc[factor]), strongest(result.loc[factor])
            of_factor = {name: table[factor] for name, table in readings.items()
                         if factor in table and method == "pearson"}
            for name, r in of_factor.items():
                said += f"; {name}: " + ", ".join(f"{MEASURE_LABELS[m]} {v:.2f}" for m, v in r.items())
                ours = r.get("wcka", result.loc[(factor, "wcka"), "r"])
                if judged == "holds" and r.drop("wcka", errors="ignore").max() > ours:
                    judged = "partly"
            rows.append(Claim(
                where, f"wCKA has the strongest {method.capitalize()} correlation: {factor}",
                said, judged))
    return rows


def significant(where: str, results: dict[str, pd.DataFrame], factors: Sequence[str]) -> Claim:
    """Claim that wCKA's leads over the others are significant at 0.001."""
    tests = pd.concat([rows.loc[factor].drop("wcka") for rows in results.values()
                       for factor in factors])
    ahead = tests.difference > 0

    def count(column: str, level: float) -> str:
        sure = tests[column] < level
        return f"{(sure & ahead).sum()} ahead and {(sure & ~ahead).sum()} behind"

    leads = ahead & (tests["p model"] < 0.001)
    return Claim(where, "wCKA's leads over the others are significant at 0.001",
                 f"{', '.join(factors)}, Pearson and Spearman: of {len(tests)} comparisons "
                 f"{count('p Fisher', 0.001)} by the paper's test, {count('p model', 0.001)} over "
                 f"starts ({count('p model', 0.05)} at 0.05)", verdict(leads.all(), leads.any()))


def raised(changes: pd.DataFrame) -> tuple[str, str]:
    """Changes of measures as text, and the verdict of: all are above zero.

    `changes`: value, low and high by measure. It holds if all surely are; partly if some are and
    none is surely below; it fails if one surely is; else it cannot be told.
    """
    words = ", ".join(f"{MEASURE_LABELS[m]} {interval(row.value, row.low, row.high, '+.2f')}"
                      for m, row in changes.iterrows())
    up, down = changes.low > 0, changes.high < 0
    if down.any():
        return words, "fails"
    return words, verdict(up.all(), up.any()) if up.any() else "cannot be told"
