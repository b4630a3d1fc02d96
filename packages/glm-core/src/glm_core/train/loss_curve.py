"""The loss curve as a picture."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from glm_core.train.metrics_log import read_metrics

logger = logging.getLogger(__name__)


def draw_loss_curve(metrics: Path, picture: Path) -> bool:
    """Draw the losses of a metrics.jsonl as a PNG.

    Without matplotlib, or with nothing to draw, nothing is written and a warning says why: a
    picture is no reason for a finished training to fail.

    Returns:
        Whether the picture was written.
    """
    rows = [row for row in read_metrics(metrics) if row.get("loss") is not None]
    if not rows:
        logger.warning("no loss curve: %s has no losses", metrics)
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no loss curve: pip install matplotlib")
        return False
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], label="training loss")
    held_out = [row for row in rows if row.get("eval_loss") is not None]
    if held_out:
        steps = [row["step"] for row in held_out]
        axes.plot(steps, [row["eval_loss"] for row in held_out], "o-", label="held-out loss")
        axes.legend()
    axes.set(xlabel="step", ylabel="loss per target (nats)")
    axes.grid(alpha=0.3)
    temporary = picture.with_name(f".{picture.name}.writing")
    FigureCanvasAgg(figure).print_png(str(temporary))  # type: ignore[no-untyped-call]
    os.replace(temporary, picture)
    return True
