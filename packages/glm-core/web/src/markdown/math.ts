/** Formulas, which Markdown would take apart: they are shown as TeX, as the model wrote them. */

import type { TokenizerExtension } from "marked";

/** Characters that a formula may be long; what is longer is none, and is not looked through. */
const MAX_CHARS = 2000;
const BLOCK = /^ {0,3}(?:\$\$[^$]+\$\$|\\\[[^]+?\\\])[ \t]*(?:\n|$)/;
const INLINE = /^(?:\$\$[^$\n]+\$\$|\\\([^\n]+?\\\)|\\\[[^\n]+?\\\])/;

export const mathBlock: TokenizerExtension = {
  name: "math",
  level: "block",
  tokenizer: (text) => tokenOf(BLOCK, text),
};

export const mathInline: TokenizerExtension = {
  name: "math",
  level: "inline",
  start: (text) => {
    const index = text.search(/\$\$|\\[([]/);
    return index < 0 ? undefined : index;
  },
  tokenizer: (text) => tokenOf(INLINE, text),
};

function tokenOf(pattern: RegExp, text: string) {
  const found = pattern.exec(text.slice(0, MAX_CHARS));
  return found ? { type: "math", raw: found[0] } : undefined;
}
