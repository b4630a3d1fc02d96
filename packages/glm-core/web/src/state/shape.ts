/** Reads conversations from JSON that may come from anywhere: an older page, a file, a person. */

import { newId } from "./ids";
import type { AnswerMessage, Conversation, Document, Message, Sampling, Settings, Source, State, Step, UserMessage } from "./types";

type Raw = Record<string, unknown>;

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const count = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);
const raw = (value: unknown): Raw => (typeof value === "object" && value !== null ? (value as Raw) : {});
const list = <T>(value: unknown, read: (one: Raw) => T): T[] =>
  Array.isArray(value) ? value.map((one) => read(raw(one))) : [];

/** Only pictures that are in the text itself: nothing is fetched from anywhere. */
export const isPicture = (url: string): boolean => /^data:image\/(png|jpeg|gif|webp|svg\+xml);/.test(url);

const ENDED: State[] = ["done", "stopped", "cut", "failed"];
const NUMBERS = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "max_tokens",
  "repetition_penalty",
  "presence_penalty",
  "frequency_penalty",
  "seed",
] as const;

/** Returns the conversation that the data tells of, or undefined where it tells of none. */
export function readConversation(data: unknown): Conversation | undefined {
  const from = raw(data);
  if (!Array.isArray(from.messages)) return undefined;
  return {
    id: text(from.id) || newId(),
    title: text(from.title).slice(0, 200),
    isNamed: from.isNamed === true,
    changed: count(from.changed) || Date.now(),
    ...readSettings(from),
    messages: list(from.messages, readMessage),
    documents: list(from.documents, readDocument),
  };
}

/** Returns the settings that the data tells of; the defaults for what it does not. */
export function readSettings(data: unknown): Settings {
  const from = raw(data);
  return {
    system: text(from.system),
    sampling: readSampling(raw(from.sampling)),
    usesTools: from.usesTools === true,
  };
}

function readSampling(from: Raw): Sampling {
  const sampling: Sampling = {};
  for (const name of NUMBERS) {
    if (typeof from[name] === "number" && Number.isFinite(from[name])) sampling[name] = from[name];
  }
  if (Array.isArray(from.stop)) sampling.stop = from.stop.map(text).filter(Boolean);
  return sampling;
}

function readMessage(from: Raw): Message {
  return from.role === "assistant" ? readAnswer(from) : readQuestion(from);
}

function readQuestion(from: Raw): UserMessage {
  const pictures = list(from.pictures, (one) => ({ url: text(one.url), name: text(one.name) }));
  return {
    role: "user",
    id: text(from.id) || newId(),
    text: text(from.text),
    pictures: pictures.filter(({ url }) => isPicture(url)),
  };
}

function readAnswer(from: Raw): AnswerMessage {
  const state = text(from.state) as State;
  const answer: AnswerMessage = {
    role: "assistant",
    id: text(from.id) || newId(),
    steps: list(from.steps, readStep),
    // One that was being written when the page went away.
    state: ENDED.includes(state) ? state : "stopped",
    sources: list(from.sources, readSource),
    model: text(from.model),
  };
  if (count(from.tokens)) answer.tokens = count(from.tokens);
  if (count(from.seconds)) answer.seconds = count(from.seconds);
  if (state === "failed") {
    answer.trouble = { kind: "broken", message: text(raw(from.trouble).message) || "The answer did not come." };
  }
  return answer;
}

function readStep(from: Raw): Step {
  if (from.kind !== "call") return { kind: "text", text: text(from.text) };
  const result = raw(from.result);
  const pictures = Array.isArray(result.pictures) ? result.pictures.map(text).filter(isPicture) : [];
  return {
    kind: "call",
    id: text(from.id),
    name: text(from.name),
    input: text(from.input),
    isCode: from.isCode === true,
    result: { text: text(result.text), isError: result.isError === true, pictures },
  };
}

function readSource(from: Raw): Source {
  return { document: text(from.document), page: count(from.page), text: text(from.text) };
}

function readDocument(from: Raw): Document {
  return {
    id: text(from.id) || newId(),
    name: text(from.name),
    passages: list(from.passages, (one) => ({ text: text(one.text), page: count(one.page) })),
  };
}
