"""The study of minifloats against integers as a page: what the table says of the paper's conclusions, whichever way it goes."""

import numpy as np
import pandas as pd

from studies import provenance
from studies.minifloat_vs_int_cost import CYCLES
from studies.minifloat_vs_int_data import INTEGER, MINIFLOAT, MOST_EXPONENT_BITS, NONE, ROWS, Scope, best_rows

ACCURACY, KL, MEMORY, LUT = "accuracy [share]", "kl [nat]", "weight_memory [bit]", "mac_units [LUT]"
WEIGHT_BITS, ACTIVATION_BITS = "weight_bits [bit]", "activation_bits [bit]"
#: accuracies that differ by no more count as equal
MARGIN = 0.01
#: accuracy below float that is still of use, for fronts
USABLE = 0.05
#: share of a front that is often
OFTEN = 1 / 3
#: the widths that gains of networks are compared at: below, no side is of use; above, both are as good as float
COMPARED = (4, 5, 6)
HOLDS, PARTLY, FAILS = "**holds**", "**holds in part**", "**does not hold**"


def equal_widths(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines with one format for weights and activations."""
    return lines[lines["weight"] == lines["activation"]]


def duels(lines: pd.DataFrame) -> pd.DataFrame:
    """Return for every network and width the integer beside the minifloat of the lowest divergence, each after its best row."""
    found = []
    kept = equal_widths(best_rows(lines)).sort_values(["model", WEIGHT_BITS], key=lambda column: _rank(column, lines))
    for (model, bits), some in kept.groupby(["model", WEIGHT_BITS], sort=False):
        integer = some[some["kind"] == INTEGER].iloc[0]
        minifloat = some[some["kind"] == MINIFLOAT].sort_values(KL, kind="stable").iloc[0]
        found.append(
            {
                "model": model,
                "bits": bits,
                "integer accuracy": integer[ACCURACY],
                "minifloat": minifloat["weight"],
                "minifloat accuracy": minifloat[ACCURACY],
                "gain [points]": 100 * (minifloat[ACCURACY] - integer[ACCURACY]),
                "integer KL [nat]": integer[KL],
                "minifloat KL [nat]": minifloat[KL],
                "KL ratio": integer[KL] / minifloat[KL],
                "integer [LUT]": integer[LUT],
                "minifloat [LUT]": minifloat[LUT],
                "LUT ratio": minifloat[LUT] / integer[LUT],
                "integer steps": integer["steps"],
                "minifloat steps": minifloat["steps"],
            }
        )
    return pd.DataFrame(found)


def _rank(column: pd.Series, lines: pd.DataFrame) -> pd.Series:
    """Return the keys that sort networks as the lines have them, and numbers as they are."""
    order = {name: number for number, name in enumerate(dict.fromkeys(lines["model"]))}
    return column.map(order) if column.name == "model" else column


def ahead(found: pd.DataFrame) -> str:
    """Say whether minifloats are ahead at four bits and above in accuracy."""
    of_use = found[found["bits"] >= 4]
    gains = (of_use["gain [points]"] / 100).round(6)
    wins, losses = int((gains > MARGIN).sum()), int((gains < -MARGIN).sum())
    verdict = HOLDS if wins and not losses else FAILS if losses >= wins else PARTLY
    closer = int((of_use["KL ratio"] > 1).sum())
    return (
        f"*Minifloats are ahead of integers at 4 bits and above in accuracy*: {verdict}. Of {len(of_use)} pairs of network and "
        f"width, the best minifloat is ahead by more than {100 * MARGIN:g} point in {wins}, behind by more in {losses}, and level "
        f"in {len(of_use) - wins - losses}. By divergence from the float network, which tells finer differences, it is ahead in "
        f"{closer}."
    )


def front(points: pd.DataFrame, cost: str, floats: dict[str, float], measured: str = ACCURACY) -> pd.DataFrame:
    """Return the integers and minifloats of one network that nothing beats in what is measured and a cost, among those of use."""
    usable = points[points["kind"].isin([INTEGER, MINIFLOAT])]
    usable = usable[usable[ACCURACY] >= usable["model"].map(floats) - USABLE]
    loss = usable[measured] if measured == KL else -usable[measured]
    usable = usable.assign(loss=loss).sort_values([cost, "loss"], kind="stable")
    return usable[usable["loss"] < usable["loss"].cummin().shift(fill_value=np.inf)].drop(columns="loss")


def optimal(lines: pd.DataFrame, floats: dict[str, float]) -> str:
    """Say whether integers are often Pareto-optimal once LUTs count."""

    def counted(cost: str, measured: str) -> dict[str, tuple[int, int]]:
        fronts = {str(model): front(some, cost, floats, measured) for model, some in best_rows(lines).groupby("model", sort=False)}
        return {model: (int((kept["kind"] == INTEGER).sum()), len(kept)) for model, kept in fronts.items()}

    def said(counts: dict[str, tuple[int, int]]) -> str:
        return ", ".join(f"{model} {integers} of {total}" for model, (integers, total) in counts.items())

    by_luts = counted(LUT, ACCURACY)
    often = [integers >= OFTEN * total and integers > 0 for integers, total in by_luts.values()]
    verdict = HOLDS if all(often) else PARTLY if any(often) else FAILS
    return (
        f"*Integers are often Pareto-optimal once LUTs count*: {verdict} (often: a third of the front or more, on every network). "
        f"Integers on the front of accuracy and LUTs: {said(by_luts)}; on that of accuracy and weight memory: "
        f"{said(counted(MEMORY, ACCURACY))}. By divergence in place of accuracy: LUTs {said(counted(LUT, KL))}; memory "
        f"{said(counted(MEMORY, KL))}."
    )


def transformers(found: pd.DataFrame) -> str:
    """Say whether the vision transformer profits most."""
    some = found[found["bits"].isin(COMPARED)]
    points = some.groupby("model", sort=False)["gain [points]"].mean()
    ratios = some.groupby("model", sort=False)["KL ratio"].agg(lambda values: np.exp(np.log(values).mean()))
    by_accuracy = str(points.idxmax()) == "vit" and float(points["vit"]) > 100 * MARGIN
    by_divergence = str(ratios.idxmax()) == "vit" and float(ratios["vit"]) > 1
    verdict = HOLDS if by_accuracy and by_divergence else PARTLY if by_accuracy or by_divergence else FAILS
    yes = {True: "yes", False: "no"}
    widths = sorted(set(some["bits"]))
    said = "; ".join(f"{model} {points[model]:+.1f} points, {ratios[model]:.2f} times" for model in points.index)
    return (
        f"*Transformers profit most*: {verdict} (in accuracy, by more than {100 * MARGIN:g} point: {yes[by_accuracy]}; in "
        f"divergence: {yes[by_divergence]}). Gain in accuracy of the best minifloat over the integer, and by how many times it "
        f"divides the divergence, as means over {', '.join(map(str, widths))} bits: {said}."
    )


def price(found: pd.DataFrame) -> str:
    """Say what the minifloats cost in LUTs."""
    ratios = found[found["bits"] >= 4].groupby("bits")["LUT ratio"].agg(["min", "max"])
    said = ", ".join(f"{bits} bits {row['min']:.2f} to {row['max']:.2f}" for bits, row in ratios.iterrows())
    return f"LUTs of the minifloat that is closest to float over those of the integer of its width, by network: {said}."


def steps(lines: pd.DataFrame) -> str:
    """Say what the post-training steps do for either side at the narrow widths."""
    some = equal_widths(lines)
    some = some[some[WEIGHT_BITS].isin((3, 4))]
    best = best_rows(some).set_index(["model", "weight"])
    plain = some[some["steps"] == NONE].set_index(["model", "weight"])
    gain = (plain[KL] / best[KL]).rename("times").reset_index().merge(best["kind"].reset_index(), on=["model", "weight"])
    medians = gain.groupby("kind")["times"].median()
    counts = best_rows(equal_widths(lines))["steps"].value_counts()
    ranked = ", ".join(f"`{name}` {count}" for name, count in counts.items())
    return (
        f"Steps at 3 and 4 bits divide the divergence by {medians[INTEGER]:.2f} for integers and by {medians[MINIFLOAT]:.2f} for "
        f"minifloats in the median. The best row of a network and format, of all widths: {ranked}."
    )


def rows_table(lines: pd.DataFrame, bits: int) -> pd.DataFrame:
    """Return accuracy after every row of steps, a line for each network and format of a width."""
    some = equal_widths(lines)
    some = some[some[WEIGHT_BITS] == bits]
    order = [row.name for row in ROWS if row.name in set(some["steps"])]
    wide = some.pivot(index=["model", "weight"], columns="steps", values=ACCURACY)[order]
    wide = wide.reindex(pd.MultiIndex.from_frame(some[["model", "weight"]].drop_duplicates()))
    shown = wide.map(lambda value: "" if pd.isna(value) else f"{value:.3f}").reset_index()
    return shown.rename(columns={"weight": "format"})


def findings(lines: pd.DataFrame, floats: dict[str, float]) -> list[str]:
    """Return what the table says, in sentences that come out either way."""
    found = duels(lines)
    plain = duels(lines[lines["steps"] == NONE])
    return [
        f"{ahead(found)} Without any step: {ahead(plain).split(': ', 1)[1]}",
        optimal(lines, floats),
        f"{transformers(found)} Without any step: {transformers(plain).split(': ', 1)[1]}",
        price(found),
        steps(lines),
    ]


def page(scope: Scope, lines: pd.DataFrame, floats: dict[str, float], made: str) -> str:
    """Return the report's text."""
    said = ", ".join(f"{model} {accuracy:.3f}" for model, accuracy in floats.items())
    networks = [
        part for model in scope.models for part in (f"![{model}: accuracy and divergence against memory and LUTs]({model}.png)", "")
    ]
    tables = [
        part
        for bits in scope.widths[:2]
        for part in (f"### Accuracy after every row of steps, {bits} bits", "", provenance.markdown(rows_table(lines, bits)), "")
    ]
    return "\n".join(
        [
            "# Minifloats against integers",
            "",
            made,
            'The question of "Shedding the Bits" (Aggarwal et al., arXiv 2311.12359), on this project\'s networks and with its own '
            "steps, emulators and table of synthesised units.",
            "",
            "## What one learns",
            "",
            *(f"- {sentence}" for sentence in findings(lines, floats)),
            "",
            "![Divergence and accuracy by width](widths.png)",
            "",
            *networks,
            "## The best minifloat beside the integer, after the best row of steps",
            "",
            provenance.markdown(_rounded(duels(lines))),
            "",
            *tables,
            "### Weights and activations of different widths, best row of steps",
            "",
            provenance.markdown(unequal(lines)),
            "",
            *_how(scope, lines, said),
        ]
    )


def unequal(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines with different widths for weights and activations, each after its best row."""
    best = best_rows(lines)
    some = best[best["weight"] != best["activation"]]
    some = some.sort_values(["model", WEIGHT_BITS, ACTIVATION_BITS, "kind"], key=lambda column: _rank(column, lines))
    shown = some[["model", "weight", "activation", "steps", ACCURACY, KL]].copy()
    shown["weight memory [KiB]"] = (some[MEMORY] / 8192).round(1)
    shown[LUT] = some[LUT].round().astype(int)
    return shown


def _rounded(found: pd.DataFrame) -> pd.DataFrame:
    digits = {"gain [points]": 2, "integer KL [nat]": 5, "minifloat KL [nat]": 5, "KL ratio": 2, "LUT ratio": 2}
    return found.round(digits | {"integer [LUT]": 0, "minifloat [LUT]": 0})


def _how(scope: Scope, lines: pd.DataFrame, floats: str) -> list[str]:
    images = scope.samples
    error = 100 * (0.9 * 0.1 / images) ** 0.5
    rows = "; ".join(f"`{row.name}`" + (f" below {row.below} bits" if row.below <= max(scope.widths) else "") for row in scope.rows)
    return [
        "## How it was measured",
        "",
        f"- {scope.data}, the first {images} validation images, which no network was trained on and no step looked at. An accuracy "
        f"of 0.9 has a standard error of {error:.1f} points; differences between formats, on the same images, are surer. Float "
        f"networks have {floats}.",
        f"- Widths {', '.join(map(str, scope.widths))} bits, the same format for every weight (a scale for each output channel) "
        "and every activation (one scale); scales by least squared error. Activations that are never negative take the format's "
        "unsigned counterpart: one bit more of integer or mantissa. Minifloats have all codes finite, subnormals, and up to "
        f"{MOST_EXPONENT_BITS} exponent bits. With one exponent bit all levels are evenly spaced, so `e1m…` stands in the table "
        "alone and is on neither side.",
        f"- Rows of steps: {rows}. `all` is {_row_text(scope)}. The best row of a format is that of the lowest divergence, found "
        "on the very images that are reported, as is the best minifloat of a width; divergence is far less noisy than accuracy.",
        f"- LUTs are those of multiply-accumulate units alone, for one sample in {CYCLES:,} clock cycles whatever the format, "
        "each with an accumulator that is exact for the layer's dot length, without DSP slices; requantizers, memories and control "
        f"are left out, as in the paper. Units as Yosys maps them where the table has the pair, else predicted by a model fitted "
        f"to it ({_predicted(lines)}); `mac_units_predicted` in the table says so for each line, and the study of "
        "multiply-accumulates (`reports/mac_costs`) how far predictions are off. Nothing was placed or routed. "
        "Weight memory is that of codes and scales.",
        f"- Fronts are among assignments within {100 * USABLE:g} points of float, weights and activations of different widths "
        "among them; for these the minifloats are those of the two widths that are closest to float, and steps are `none` or "
        "`all`.",
        f"- {len(lines)} assignments were measured, as many as take about twenty minutes of one core.",
        "- The paper's networks are larger (ResNet-18, MobileNetV2 and ViT-B/32 on ImageNet), its LUTs those of another fabric "
        "after implementation.",
        "",
    ]


def _predicted(lines: pd.DataFrame) -> str:
    """Say what share of the LUTs is predicted, on either side."""
    shares = []
    for kind in (INTEGER, MINIFLOAT):
        some = lines[lines["kind"] == kind]
        share = float((some["mac_units_predicted [share]"] * some[LUT]).sum() / some[LUT].sum())
        shares.append(f"{100 * share:.0f} % of the LUTs of {kind}s")
    return " and ".join(shares)


def _row_text(scope: Scope) -> str:
    everything = next(row for row in scope.rows if row.name == "all")
    return ", ".join(f"`{name}`" for name in (*everything.network, *everything.layer))
