/** Text of a model as nodes. Nothing in this page is ever made of HTML. */

import type { ComponentChild } from "preact";

/** Characters that reorder the text around them; shown, so that code reads as it runs. */
const REORDERING = /[\u202A-\u202E\u2066-\u2069]/;
const NAMES: Record<string, string> = {
  "\u202A": "LRE",
  "\u202B": "RLE",
  "\u202C": "PDF",
  "\u202D": "LRO",
  "\u202E": "RLO",
  "\u2066": "LRI",
  "\u2067": "RLI",
  "\u2068": "FSI",
  "\u2069": "PDI",
};

export function shown(text: string): ComponentChild {
  if (!REORDERING.test(text)) return text;
  return text.split(/([\u202A-\u202E\u2066-\u2069])/).map((piece) => {
    const name = NAMES[piece];
    return name ? (
      <span class="invisible" title="A character that would reorder the text">
        {name}
      </span>
    ) : (
      piece
    );
  });
}

const ENTITIES: Record<string, string> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00A0",
  copy: "\u00A9",
  hellip: "\u2026",
  mdash: "\u2014",
  ndash: "\u2013",
  times: "\u00D7",
  rarr: "\u2192",
  larr: "\u2190",
  le: "\u2264",
  ge: "\u2265",
  ne: "\u2260",
};

/** Markdown's entities as the characters they stand for. */
export function decoded(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w+));/gi, (whole, decimal, hex, name: string) => {
    const code = decimal ? Number(decimal) : hex ? parseInt(hex as string, 16) : 0;
    if (!code) return ENTITIES[name] ?? whole;
    return code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff) ? String.fromCodePoint(code) : "\uFFFD";
  });
}

/** The address of a link that may be followed, or undefined. */
export function safeLink(href: string): string | undefined {
  try {
    const url = new URL(decoded(href.trim()));
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : undefined;
  } catch {
    return undefined; // relative: it would lead into this server
  }
}
