"""How every figure looks: colours, font, titles, ticks."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from sweep.analysis.axes import shown

# Okabe and Ito's palette, and one hue from white to dark: both survive every colour blindness and grey print.
BLUE, ORANGE, RED, INK, GRID = "#0072B2", "#E69F00", "#D55E00", "#222222", "#E6E6E6"
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif", "size": 15, "color": INK}


def dress(figure: go.Figure, heading: str, *, height: int, top: int = 86) -> None:
    """The figure with its heading, font, legend and grid. height, top: pixels, of all and above the axes."""
    figure.update_layout(
        template="plotly_white",
        title={
            "text": heading,
            "font": {"size": 20},
            "x": 0.0,
            "xref": "paper",
            "y": 0.985,
            "yanchor": "top",
        },
        font=FONT,
        height=height,
        margin={"l": 20, "r": 20, "t": top, "b": 20},
        legend={"orientation": "h", "x": 0.0, "y": 1.0, "yanchor": "bottom", "xanchor": "left"},
        hoverlabel={"font_size": 14},
    )
    figure.update_xaxes(
        automargin=True, gridcolor=GRID, zeroline=False, ticklabelstandoff=4, title_font_size=15
    )
    figure.update_yaxes(
        automargin=True, gridcolor=GRID, zeroline=False, ticklabelstandoff=6, title_font_size=15
    )


def decades(low: float, high: float) -> dict[str, Any]:
    """Ticks at 1, 2 and 5, or 1 and 3 over more than two decades, of each power of ten inside."""
    steps = (1.0, 3.0) if high / low > 100 else (1.0, 2.0, 5.0)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return {"tickvals": inside, "ticktext": [shown(tick) for tick in inside]}


def even(low: float, high: float, *, most: int = 6) -> dict[str, Any]:
    """Ticks at multiples of 1, 2 or 5 times a power of ten, at most so many steps; one where low is high."""
    if low == high:
        return {"tickvals": [low], "ticktext": [f"{low:.4g}"]}
    power = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(power * size for size in (1, 2, 5, 10) if (high - low) / (power * size) <= most)
    # Adding zero turns -0.0 into 0.0.
    ticks = step * np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) + 0.0
    return {"tickvals": ticks.tolist(), "ticktext": [f"{tick:.6g}" for tick in ticks]}


def pad_of(floor: float, ceiling: float) -> float:
    """Room around losses, also where they are all the same."""
    return 0.06 * (ceiling - floor) or 0.01 * abs(ceiling) or 1.0


def without_losses(figure: go.Figure) -> go.Figure:
    """The figure, saying that there is nothing to draw."""
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure.add_annotation(
        text="No trial has a loss.", xref="paper", yref="paper", x=0.5, y=0.5, showarrow=False
    )
