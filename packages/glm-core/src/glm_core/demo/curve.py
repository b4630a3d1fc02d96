"""A line chart as inline SVG: coloured by the page's style sheet, so it follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glm_core.demo.page import Html, escape

_WIDTH, _HEIGHT = 720, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 42


def loss_curve(steps: Sequence[int], losses: Sequence[float], title: str) -> Html:
    """Draw losses over steps, thin as measured and bold as an exponential moving average.

    Args:
        steps: step of each loss, increasing.
        losses: nats per target token; values that are not finite are left out.
        title: what a screen reader says of the picture.

    Raises:
        ValueError: fewer than two finite losses.
    """
    points = [(s, x) for s, x in zip(steps, losses, strict=True) if math.isfinite(x)]
    if len(points) < 2:
        raise ValueError(f"a curve needs at least two finite losses, got {len(points)}")
    xs, ys = [float(s) for s, _ in points], [x for _, x in points]
    x_ticks, y_ticks = ticks(xs[0], xs[-1], 6), ticks(min(ys), max(ys), 5)
    low, high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / max(xs[-1] - xs[0], 1e-9)
        up = (y - low) / max(high - low, 1e-9)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def path(values: Sequence[float]) -> str:
        return "M" + "L".join(
            "{:.1f} {:.1f}".format(*place(x, y)) for x, y in zip(xs, values, strict=True)
        )

    marks = [_y_mark(place(xs[0], y)[1], y) for y in y_ticks]
    marks += [_x_mark(place(x, low)[0], x) for x in x_ticks]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f'{"".join(marks)}<path class="raw" d="{path(ys)}"/>'
        f'<path class="line" d="{path(smooth(ys))}"/>'
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">step</text></svg>'
    )


def smooth(values: Sequence[float], span: float = 0.05) -> list[float]:
    """Exponential moving average, without the pull towards the first value.

    Args:
        values: the measured values.
        span: memory as a share of the number of values.
    """
    keep = 1 - 1 / max(1.0, span * len(values))
    total = weight = 0.0
    averages = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        averages.append(total / weight)
    return averages


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) between `low` and `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _y_mark(at: float, value: float) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _x_mark(at: float, value: float) -> str:
    return f'<text x="{at:.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{value:,.0f}</text>'
