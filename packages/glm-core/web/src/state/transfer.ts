/** Conversations as files. */

import { newId } from "./ids";
import { readConversation } from "./shape";
import { add, conversations } from "./store";
import type { Conversation } from "./types";

const KIND = "glm-conversations";

export function save(chosen: Conversation[], name: string): void {
  const data = JSON.stringify({ kind: KIND, version: 1, conversations: chosen }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data], { type: "application/json" }));
  link.download = `${name.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "conversation"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function saveAll(): void {
  save(conversations.value, "conversations");
}

/** Adds the conversations of a file; throws an Error that says what is wrong with it. */
export async function load(file: File): Promise<number> {
  let data: unknown;
  try {
    data = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is no JSON: choose a file that this page exported.`);
  }
  const told = (data as { conversations?: unknown } | null)?.conversations;
  const found = (Array.isArray(told) ? told : [data]).map(readConversation).filter((one) => one !== undefined);
  if (!found.length) throw new Error(`${file.name} holds no conversation: choose a file that this page exported.`);
  for (const conversation of found) add({ ...conversation, id: newId() });
  return found.length;
}
