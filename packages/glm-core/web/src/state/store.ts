/** The conversations: kept in this browser, one entry of localStorage each. */

import { batch, computed, signal } from "@preact/signals";
import { newId } from "./ids";
import { readConversation, readSettings } from "./shape";
import type { AnswerMessage, Conversation, Message, Settings } from "./types";
import { kept } from "./keep";

const PREFIX = "glm.conversation.";
const CURRENT = "glm.current";
const SETTINGS = "glm.settings";
const WRITE_AFTER_MS = 400;
/** Large conversations are written less often: at most this share of the time goes into it. */
const WRITE_SHARE = 0.05;

export const conversations = signal<Conversation[]>(load());
export const currentId = signal(kept.get(CURRENT) ?? "");
/** Whether the last write did not fit into the browser's storage. */
export const isFull = signal(false);
/** Conversations newest first. */
export const ordered = computed(() => [...conversations.value].sort((a, b) => b.changed - a.changed));
export const current = computed<Conversation>(
  () => conversations.value.find((one) => one.id === currentId.value) ?? blank.value,
);
/** What is shown before the first message; it is kept once something is said in it. */
const blank = signal(newConversation());

function newConversation(): Conversation {
  return {
    id: newId(),
    title: "",
    isNamed: false,
    changed: Date.now(),
    ...readSettings(parsed(kept.get(SETTINGS))),
    messages: [],
    documents: [],
  };
}

function load(): Conversation[] {
  const found: Conversation[] = [];
  for (const key of kept.names().filter((name) => name.startsWith(PREFIX))) {
    const conversation = parse(kept.get(key) ?? "");
    if (conversation) found.push(conversation);
  }
  return found;
}

function parse(stored: string): Conversation | undefined {
  return readConversation(parsed(stored));
}

function parsed(stored: string | null): unknown {
  try {
    return JSON.parse(stored ?? "null");
  } catch {
    return undefined;
  }
}

export function open(id: string): void {
  currentId.value = id;
  kept.set(CURRENT, id);
}

/** Shows an empty conversation with the settings that were chosen last. */
export function startNew(): void {
  batch(() => {
    blank.value = newConversation();
    open(blank.value.id);
  });
}

/** Changes the settings of a conversation and of those that are begun after it. */
export function changeSettings(id: string, changes: Partial<Settings>): void {
  const { system, sampling, usesTools } = { ...(find(id) ?? blank.value), ...changes };
  kept.set(SETTINGS, JSON.stringify({ system, sampling, usesTools }));
  change(id, changes);
}

/** Changes a conversation; the first change of a blank one adds it to the list. */
export function change(id: string, changes: Partial<Conversation>, isNews = false): void {
  const known = conversations.value.find((one) => one.id === id);
  if (!known && blank.value.id !== id) return; // deleted while an answer came
  const next = { ...(known ?? blank.value), ...changes };
  if (isNews) next.changed = Date.now();
  if (!known && !next.messages.length && !next.documents.length) {
    blank.value = next;
    return;
  }
  batch(() => {
    conversations.value = known
      ? conversations.value.map((one) => (one.id === id ? next : one))
      : [...conversations.value, next];
    if (!known) {
      open(id);
      blank.value = newConversation();
    }
  });
  writeSoon(id);
}

export function find(id: string): Conversation | undefined {
  return conversations.value.find((one) => one.id === id);
}

/** Replaces the last message of a conversation while it is written. */
export function changeAnswer(id: string, answerId: string, changes: Partial<AnswerMessage>): void {
  const messages = find(id)?.messages;
  if (!messages) return;
  const next = messages.map((one): Message =>
    one.id === answerId && one.role === "assistant" ? { ...one, ...changes } : one,
  );
  change(id, { messages: next });
}

export function rename(id: string, title: string): void {
  const name = title.trim().slice(0, 200);
  if (name) change(id, { title: name, isNamed: true });
}

export function remove(id: string): void {
  conversations.value = conversations.value.filter((one) => one.id !== id);
  waiting.delete(id);
  kept.remove(PREFIX + id);
  if (currentId.value === id) startNew();
}

export function add(conversation: Conversation): void {
  conversations.value = [...conversations.value, conversation];
  open(conversation.id);
  writeSoon(conversation.id);
}

const waiting = new Set<string>();
let timer = 0;
let lastWriteMs = 0;

function writeSoon(id: string): void {
  waiting.add(id);
  if (!timer) timer = window.setTimeout(writeAll, Math.max(WRITE_AFTER_MS, lastWriteMs / WRITE_SHARE));
}

function writeAll(): void {
  clearTimeout(timer);
  timer = 0;
  const began = performance.now();
  for (const id of waiting) {
    const conversation = find(id);
    if (conversation) write(conversation);
  }
  waiting.clear();
  lastWriteMs = performance.now() - began;
}

function write(conversation: Conversation): void {
  isFull.value = !kept.set(PREFIX + conversation.id, JSON.stringify(conversation));
}

/** What another tab wrote or deleted. */
function hear({ key, newValue }: StorageEvent): void {
  if (!key?.startsWith(PREFIX)) return;
  const id = key.slice(PREFIX.length);
  const others = conversations.value.filter((one) => one.id !== id);
  const told = newValue === null ? undefined : parse(newValue);
  conversations.value = told ? [...others, told] : others;
}

window.addEventListener("pagehide", writeAll);
window.addEventListener("storage", hear);
