"""The demo's page: one self-contained HTML file, light and dark, with every text escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType

Html = NewType("Html", str)
"""Text that is already HTML. Only the functions of this package make it, so nothing that a model
or a user wrote reaches the page unescaped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One scene's part of the page."""

    title: str
    blocks: Sequence[Html]
    seconds: float
    """How long the scene took; 0 shows no time."""


def escape(text: str) -> Html:
    """`text` as HTML that shows exactly these characters."""
    return Html(html.escape(text, quote=True))


def paragraph(text: str) -> Html:
    """A paragraph of plain text."""
    return Html(f"<p>{escape(text)}</p>")


def passage(pieces: Iterable[tuple[str, bool]], label: str = "") -> Html:
    """A quoted text in which the pieces flagged True, those a model wrote, are marked."""
    body = "".join(f"<mark>{escape(t)}</mark>" if m else escape(t) for t, m in pieces if t)
    caption = f"<figcaption>{escape(label)}</figcaption>" if label else ""
    return Html(f'<figure class="passage"><blockquote>{body}</blockquote>{caption}</figure>')


def code(text: str) -> Html:
    """A block of code or of terminal output."""
    return Html(f"<pre><code>{escape(text)}</code></pre>")


def listing(pieces: Iterable[tuple[str, bool]], label: str = "") -> Html:
    """Code in which the pieces flagged True, those a model wrote, are marked."""
    body = "".join(f"<mark>{escape(t)}</mark>" if m else escape(t) for t, m in pieces if t)
    caption = f"<figcaption>{escape(label)}</figcaption>" if label else ""
    return Html(f"<figure><pre><code>{body}</code></pre>{caption}</figure>")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table; cells that are numbers are set to the right."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return Html(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """A row of figures, each a (name, value)."""
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return Html(f'<dl class="facts">{items}</dl>')


def figure(drawing: Html, caption: str) -> Html:
    """A drawing with a caption under it."""
    return Html(f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>")


def image(png: bytes, alt: str, width: int | None = None) -> Html:
    """A PNG picture inside the page itself; `width` in CSS pixels."""
    data = base64.b64encode(png).decode("ascii")
    size = f' width="{int(width)}"' if width else ""
    return Html(f'<img alt="{escape(alt)}"{size} src="data:image/png;base64,{data}">')


def render(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page as a string.

    Args:
        title: heading and window title.
        lead: a sentence or two under the heading.
        sections: the scenes, in order.
        footer: what made the page, and on what.
    """
    links = "".join(
        f'<a href="#s{number}">{escape(section.title)}</a>'
        for number, section in enumerate(sections, 1)
    )
    body = "".join(_section(number, section) for number, section in enumerate(sections, 1))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p><nav>{links}</nav></header>"
        f"{body}<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def _section(number: int, section: Section) -> str:
    took = f"<span>{section.seconds:.1f} s</span>" if section.seconds else ""
    return (
        f'<section id="s{number}"><h2>{escape(section.title)}{took}</h2>'
        f"{''.join(section.blocks)}</section>"
    )


def _cell(text: str) -> str:
    is_number = text.replace(",", "").replace(".", "", 1).lstrip("-").rstrip("%").isdigit()
    return f"<td{' class=number' if is_number else ''}>{escape(text)}</td>"


_CSS = """
:root{--bg:#f7f6f3;--card:#fff;--ink:#1f2328;--soft:#5f6670;--line:#e2e0da;--accent:#0b6e69;
--mark:#d5efe9;--mark-ink:#07413e;--code:#f1efea}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e7e9ea;--soft:#9aa3ac;
--line:#2e343a;--accent:#5cc8bd;--mark:#17443f;--mark-ink:#c9f3ec;--code:#15191c}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:17px/1.6 ui-sans-serif,system-ui,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:50rem;margin:0 auto;padding:3rem 1.25rem 4rem}
header p{color:var(--soft);font-size:1.08rem;max-width:42rem;margin:.4rem 0 0}
h1{font-size:2.1rem;line-height:1.2;letter-spacing:-.02em;margin:0}
nav{display:flex;flex-wrap:wrap;gap:.4rem .6rem;margin-top:1.2rem}
nav a{color:var(--accent);text-decoration:none;font-size:.9rem;border:1px solid var(--line);
border-radius:99px;padding:.15rem .75rem;background:var(--card)}
nav a:hover{border-color:var(--accent)}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:1.5rem 1.75rem;margin-top:1.5rem}
h2{font-size:1.25rem;margin:0 0 .5rem;display:flex;justify-content:space-between;gap:1rem;
align-items:baseline}
h2 span{font-weight:400;font-size:.85rem;color:var(--soft);white-space:nowrap}
section p{margin:.5rem 0;color:var(--soft)}
figure{margin:1rem 0}
figcaption{color:var(--soft);font-size:.85rem;margin-top:.35rem}
blockquote{margin:0;padding:.7rem 1rem;border-left:3px solid var(--accent);background:var(--code);
border-radius:0 8px 8px 0;white-space:pre-wrap;overflow-wrap:anywhere}
mark{background:var(--mark);color:var(--mark-ink);border-radius:4px;padding:.05em .2em;
-webkit-box-decoration-break:clone;box-decoration-break:clone}
pre{background:var(--code);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;margin:1rem 0;
font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.75rem;
margin:1rem 0}
.facts div{border:1px solid var(--line);border-radius:10px;padding:.5rem .8rem}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;font-size:1.1rem;font-weight:600;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.95rem;margin:1rem 0}
th,td{text-align:left;padding:.4rem .75rem;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;font-size:.85rem;white-space:nowrap}
td.number{text-align:right;font-variant-numeric:tabular-nums}
svg,img{max-width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:12px}
svg .grid{stroke:var(--line)}svg .raw{stroke:var(--accent);opacity:.3;fill:none}
svg .line{stroke:var(--accent);stroke-width:2.25;fill:none;stroke-linejoin:round}
footer{color:var(--soft);font-size:.85rem;margin-top:2rem}
@media (max-width:36rem){main{padding:1.5rem .75rem}section{padding:1.1rem 1rem}}
"""
