/** Documents that questions are asked about. */

import type { Document, Passage, Source } from "../state/types";
import { newId } from "../state/ids";
import { postJson, request } from "./http";

/** Has the server read a file into passages. */
export async function readDocument(file: File): Promise<Document> {
  const response = await request(`workbench/documents?name=${encodeURIComponent(file.name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
  });
  const { passages } = (await response.json()) as { passages: Passage[] };
  return { id: newId(), name: file.name, passages };
}

/** Returns the passages that fit a question best, within `budget` characters. */
export async function bestPassages(
  documents: Document[],
  question: string,
  budget: number,
  signal: AbortSignal,
): Promise<Source[]> {
  const all = documents.flatMap((document) => document.passages.map((passage) => ({ document, passage })));
  if (!all.length) return [];
  const body = { question, passages: all.map(({ passage }) => passage.text) };
  const response = await postJson("workbench/passages", body, signal);
  const { best } = (await response.json()) as { best: { index: number }[] };
  const sources: Source[] = [];
  let room = budget;
  for (const { index } of best) {
    const found = all[index];
    if (!found || room <= 0) continue;
    const text = found.passage.text.slice(0, room);
    room -= text.length;
    sources.push({ document: found.document.name, page: found.passage.page, text });
  }
  return sources;
}

/** What is put before a question; empty without sources. */
export function sourcesText(sources: Source[]): string {
  if (!sources.length) return "";
  const told = sources.map(({ document, page, text }, index) => {
    const place = page ? `${document}, page ${page}` : document;
    return `[${index + 1}] (${place})\n${text}`;
  });
  return `Answer from these passages, and name the ones you used as [1], [2] ...\n\n${told.join("\n\n")}\n\nQuestion: `;
}
