/** Filling blanks. */

import type { Sampling } from "../state/types";
import { eventsOf } from "./events";
import { postJson } from "./http";

/** Tokens of one blank, unless the settings say otherwise. */
const LONGEST = 64;
export const BLANK = /\[(?:MASK|sMASK|gMASK)\]/g;

/** Gives what is put into each blank, piece by piece. */
export async function* fillBlanks(
  model: string,
  prompt: string,
  sampling: Sampling,
  signal: AbortSignal,
): AsyncGenerator<{ blank: number; text: string }> {
  const body = { model, prompt, max_tokens: LONGEST, ...sampling, fill: true, stream: true };
  const response = await postJson("v1/completions", body, signal);
  for await (const event of eventsOf(response)) {
    const choice = (event as { choices?: { blank?: number; text?: string }[] }).choices?.[0];
    if (choice?.text) yield { blank: choice.blank ?? 0, text: choice.text };
  }
}
