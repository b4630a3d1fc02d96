/** Answers, as they are written: from the model alone, or with tools that the server runs. */

import type { AnswerMessage, Conversation, Message, Sampling } from "../state/types";
import { eventsOf } from "./events";
import { postJson } from "./http";

export type Part = { type: "text"; text: string } | { type: "image_url"; image_url: { url: string } };
export interface Told {
  role: "system" | "user" | "assistant" | "tool";
  content: string | Part[] | null;
  tool_calls?: unknown[];
  tool_call_id?: string;
}

export type AnswerEvent =
  | { kind: "text"; text: string }
  | { kind: "call"; id: string; name: string; input: string; isCode: boolean }
  | { kind: "result"; id: string; text: string; isError: boolean; pictures: string[] }
  | { kind: "end"; isCut: boolean; tokens?: number };

/** The conversation as the API takes it; `sources` is what the last question is put behind. */
export function toldOf(conversation: Conversation, upTo: Message[], sources: string): Told[] {
  const told: Told[] = [];
  if (conversation.system.trim()) told.push({ role: "system", content: conversation.system });
  upTo.forEach((message, index) => {
    if (message.role === "assistant") told.push(...toldAnswer(message));
    else if (!isUnanswered(upTo[index + 1])) {
      const text = index === upTo.length - 1 ? sources + message.text : message.text;
      const parts: Part[] = message.pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
      told.push({ role: "user", content: parts.length ? [...parts, { type: "text", text }] : text });
    }
  });
  return told;
}

/** Models expect an answer behind each question: one that nothing came to is left away. */
function isUnanswered(next: Message | undefined): boolean {
  return next?.role === "assistant" && !toldAnswer(next).length;
}

function toldAnswer(message: AnswerMessage): Told[] {
  const told: Told[] = [];
  for (const step of message.steps) {
    if (step.kind === "text") {
      if (step.text) told.push({ role: "assistant", content: step.text });
      continue;
    }
    if (!step.result) continue;
    const call = step.isCode
      ? { id: step.id, type: "custom", custom: { name: step.name, input: step.input } }
      : { id: step.id, type: "function", function: { name: step.name, arguments: step.input } };
    told.push({ role: "assistant", content: null, tool_calls: [call] });
    told.push({ role: "tool", tool_call_id: step.id, content: step.result.text });
  }
  return told;
}

interface Chunk {
  choices?: { delta?: { content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number } | null;
}

/** The model alone. */
export async function* plainAnswer(
  model: string,
  messages: Told[],
  sampling: Sampling,
  signal: AbortSignal,
): AsyncGenerator<AnswerEvent> {
  const body = { model, messages, ...sampling, stream: true, stream_options: { include_usage: true } };
  const response = await postJson("v1/chat/completions", body, signal);
  let reason = "stop";
  let tokens: number | undefined;
  for await (const event of eventsOf(response)) {
    const { choices, usage } = event as Chunk;
    const choice = choices?.[0];
    if (choice?.delta?.content) yield { kind: "text", text: choice.delta.content };
    reason = choice?.finish_reason ?? reason;
    tokens = usage?.completion_tokens ?? tokens;
  }
  yield end(reason === "length", tokens);
}

interface AgentEvent {
  type: "text" | "call" | "result" | "end";
  text?: string;
  id?: string;
  name?: string;
  input?: string;
  is_code?: boolean;
  is_error?: boolean;
  pictures?: string[];
  reason?: string;
}

/** The model with the server's tools. */
export async function* agentAnswer(
  conversation: Conversation,
  model: string,
  messages: Told[],
  signal: AbortSignal,
): AsyncGenerator<AnswerEvent> {
  const body = { model, messages, session: conversation.id, options: conversation.sampling };
  const response = await postJson("workbench/agent", body, signal);
  for await (const event of eventsOf(response)) {
    const told = event as AgentEvent;
    const { text = "", id = "", name = "", input = "", pictures = [] } = told;
    if (told.type === "text") yield { kind: "text", text };
    else if (told.type === "call") yield { kind: "call", id, name, input, isCode: told.is_code === true };
    else if (told.type === "result") yield { kind: "result", id, text, isError: told.is_error === true, pictures };
    else yield end(told.reason === "cut");
  }
}

function end(isCut: boolean, tokens?: number): AnswerEvent {
  return tokens === undefined ? { kind: "end", isCut } : { kind: "end", isCut, tokens };
}
