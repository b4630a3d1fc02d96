/** Filling blanks: what is written, what came of it, stopping. */

import { effect, signal } from "@preact/signals";
import { BLANK, fillBlanks } from "../api/fill";
import { asTrouble, isReachable } from "../api/http";
import { model, waitForServer } from "../api/models";
import { announcement } from "../state/look";
import { current } from "../state/store";
import type { Trouble } from "../state/types";
import { kept } from "../state/keep";

const TEXT = "glm.fill";
const EXAMPLE = "This [MASK] takes a text and returns the number of [MASK] in it.";

export const text = signal(kept.get(TEXT) ?? EXAMPLE);
/** The text around the blanks, and what was put into each. */
export const result = signal<{ pieces: string[]; fills: string[] } | undefined>(undefined);
export const trouble = signal<Trouble | undefined>(undefined);
export const isFilling = signal(false);
let control = new AbortController();

effect(() => void kept.set(TEXT, text.value));

export const stopFilling = (): void => control.abort();

/** The text with its blanks filled. */
export function filledText(): string {
  const { pieces = [], fills = [] } = result.value ?? {};
  return pieces.map((piece, index) => piece + joined(piece, fills[index] ?? "")).join("");
}

/** What is put behind a piece: models write the space before a word, which may stand there already. */
export function joined(piece: string, fill: string): string {
  return piece.endsWith(" ") && fill.startsWith(" ") ? fill.slice(1) : fill;
}

export async function fill(): Promise<void> {
  if (isFilling.value || !model.value || !text.value.trim()) return;
  control = new AbortController();
  const pieces = text.value.split(BLANK);
  let fills: string[] = Array<string>(Math.max(pieces.length - 1, 1)).fill("");
  trouble.value = undefined;
  isFilling.value = true;
  result.value = { pieces, fills };
  announcement.value = "The blanks are being filled.";
  try {
    for await (const piece of fillBlanks(model.value.id, text.value, current.value.sampling, control.signal)) {
      fills = fills.map((before, index) => (index === piece.blank ? before + piece.text : before));
      result.value = { pieces, fills };
    }
    announcement.value = filledText();
  } catch (error) {
    if (!control.signal.aborted) {
      trouble.value = asTrouble(error);
      announcement.value = trouble.value.message;
      if (!isReachable.value) waitForServer();
    }
  } finally {
    isFilling.value = false;
  }
}
