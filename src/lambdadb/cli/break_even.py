"""The picture of `lambdadb advise`: what each way to connect costs, by how often it is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from lambdadb.operate.advise import break_evens
from lambdadb.operate.cost_model import Capacity, Choice, Prices, Workload, predict

LEAST, MOST, STEPS = 0.1, 10_000.0, 200
# Colours that colour-blind readers can tell apart (Okabe and Ito), and a dash for each.
STYLES: dict[Choice, tuple[str, str]] = {
    Choice.PER_INVOCATION: ("#0072B2", "-"),
    Choice.PER_ENVIRONMENT: ("#D55E00", "--"),
    Choice.DATA_API: ("#009E73", "-."),
    Choice.PROXY: ("#CC79A7", ":"),
    Choice.ALWAYS_ON: ("#000000", (0, (1, 3))),  # type: ignore[dict-item]
}


def plot(file: Path, workload: Workload, capacity: Capacity, prices: Prices) -> None:
    """
    Draw the picture.

    Raises:
        OSError: The file cannot be written.
        ValueError: Its ending is no format of a picture.
    """
    rates = [LEAST * (MOST / LEAST) ** (step / (STEPS - 1)) for step in range(STEPS)]
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    money, paused = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for choice, (color, dashes) in STYLES.items():
        found = [predict(choice, replace(workload, per_hour=rate), capacity, prices) for rate in rates]
        line = {"color": color, "linestyle": dashes, "label": choice.value, "linewidth": 2}
        money.plot(rates, [one.cost for one in found], **line)
        if any(one.paused for one in found):
            paused.plot(rates, [100 * one.paused for one in found], **line)
    for one in break_evens(workload, capacity, prices, least=LEAST, most=MOST):
        money.axvline(one.per_hour, color="0.6", linewidth=1)
        money.annotate(
            f"from here on\n{one.after.value}",
            (one.per_hour, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 5),
            textcoords="offset points",
            fontsize=9,
        )
    for axes in (money, paused):
        axes.axvline(workload.per_hour, color="0.3", linewidth=1, linestyle=(0, (2, 2)))
        axes.grid(visible=True, alpha=0.3)
    money.set_xscale("log")
    money.set_ylim(0)
    money.set_ylabel(f"{prices.currency} a month")
    arrivals = workload.shape if workload.burst == 1 else f"{workload.shape}, {workload.burst} at a time"
    money.set_title(
        f"Ways to connect, by invocations an hour ({arrivals}; {capacity.min_acu:g} to "
        f"{capacity.max_acu:g} ACU, pause after {capacity.pause:g} s)\n"
        f"model, with prices of {prices.region} of {prices.collected}, not verified; "
        "dashed: the present rate",
        fontsize=10,
    )
    money.legend(loc="upper left", bbox_to_anchor=(0.0, 0.85), fontsize=9)
    paused.set_ylabel("% of the time paused")
    paused.set_ylim(0, 100)
    paused.set_xlabel("invocations an hour")
    figure.savefig(file, dpi=110)
