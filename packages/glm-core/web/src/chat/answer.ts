/** Asking, stopping, trying again, and changing what was asked. */

import { signal } from "@preact/signals";
import { agentAnswer, plainAnswer, toldOf, type AnswerEvent } from "../api/chat";
import { bestPassages, sourcesText } from "../api/documents";
import { asTrouble, isReachable } from "../api/http";
import { canUseTools, model, waitForServer } from "../api/models";
import { newId } from "../state/ids";
import { announcement, isSettingsOpen } from "../state/look";
import { change, changeAnswer, find } from "../state/store";
import type { AnswerMessage, Conversation, Message, Picture, Step } from "../state/types";

const MAX_SPOKEN = 3000;
/** Running answers by conversation. */
const running = signal<ReadonlyMap<string, AbortController>>(new Map());

export const isRunning = (id: string): boolean => running.value.has(id);

export function stop(id: string): void {
  running.value.get(id)?.abort();
}

export function send(conversation: Conversation, text: string, pictures: Picture[]): void {
  const question: Message = { role: "user", id: newId(), text, pictures };
  ask(conversation, [...conversation.messages, question]);
}

/** Asks again for an answer; what follows it is dropped. */
export function retry(conversation: Conversation, answerId: string): void {
  const index = conversation.messages.findIndex(({ id }) => id === answerId);
  if (index > 0) ask(conversation, conversation.messages.slice(0, index));
}

/** Asks something else in a message's place; what follows it is dropped. */
export function edit(conversation: Conversation, messageId: string, text: string): void {
  const index = conversation.messages.findIndex(({ id }) => id === messageId);
  const before = conversation.messages[index];
  if (before?.role !== "user") return;
  ask(conversation, [...conversation.messages.slice(0, index), { ...before, id: newId(), text }]);
}

function ask({ id }: Conversation, messages: Message[]): void {
  if (isRunning(id) || !model.value) return;
  const answer: AnswerMessage = {
    role: "assistant",
    id: newId(),
    steps: [],
    state: "waiting",
    sources: [],
    model: model.value.id,
  };
  change(id, { messages: [...messages, answer] }, true);
  const conversation = find(id);
  if (!conversation) return;
  if (!conversation.title && !conversation.isNamed) change(id, { title: titleOf(messages) });
  isSettingsOpen.value = false;
  void write(conversation, messages, answer);
}

function titleOf(messages: Message[]): string {
  const first = messages.find((one) => one.role === "user");
  const line = first?.text.trim().split("\n")[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 57).trimEnd()}...` : line || "Picture";
}

async function write(conversation: Conversation, messages: Message[], answer: AnswerMessage): Promise<void> {
  const control = new AbortController();
  const set = (changes: Partial<AnswerMessage>): void => changeAnswer(conversation.id, answer.id, changes);
  running.value = new Map(running.value).set(conversation.id, control);
  announcement.value = "The answer is being written.";
  const began = performance.now();
  try {
    const events = await begin(conversation, messages, set, control.signal);
    const isCut = await follow(events, began, set);
    set({ state: isCut ? "cut" : "done" });
    announcement.value = spoken(find(conversation.id), answer.id);
  } catch (error) {
    if (control.signal.aborted) {
      set({ state: "stopped" });
      announcement.value = "Stopped.";
    } else {
      const trouble = asTrouble(error);
      set({ state: "failed", trouble });
      announcement.value = trouble.message;
      if (!isReachable.value) waitForServer();
    }
  } finally {
    const left = new Map(running.value);
    left.delete(conversation.id);
    running.value = left;
  }
}

/** What screen readers say at the end: the answer, without the marks of its code. */
function spoken(conversation: Conversation | undefined, answerId: string): string {
  const answer = conversation?.messages.find(({ id }) => id === answerId);
  if (answer?.role !== "assistant") return "The answer is complete.";
  const text = answer.steps.map((step) => (step.kind === "text" ? step.text : `Called ${step.name}.`)).join(" ");
  return `Answer: ${text.replace(/```[^]*?```/g, " A block of code. ").slice(0, MAX_SPOKEN)}`;
}

async function begin(
  conversation: Conversation,
  messages: Message[],
  set: (changes: Partial<AnswerMessage>) => void,
  signal: AbortSignal,
): Promise<AsyncGenerator<AnswerEvent>> {
  const { id, context } = model.value!;
  const question = messages.at(-1);
  const asked = question?.role === "user" ? question.text : "";
  // A character a token: passages take a quarter of the context in English, more in Chinese.
  const budget = context || 8000;
  const sources = await bestPassages(conversation.documents, asked, budget, signal);
  if (sources.length) set({ sources });
  const told = toldOf(conversation, messages, sourcesText(sources));
  // An agent is asked in words: a picture goes to the model alone.
  const isText = question?.role === "user" && !question.pictures.length;
  return isText && conversation.usesTools && canUseTools.value
    ? agentAnswer(conversation, id, told, signal)
    : plainAnswer(id, told, conversation.sampling, signal);
}

/** Shows events once a frame; returns whether the answer was cut at its longest. */
async function follow(
  events: AsyncGenerator<AnswerEvent>,
  began: number,
  set: (changes: Partial<AnswerMessage>) => void,
): Promise<boolean> {
  let steps: Step[] = [];
  let frame = 0;
  const show = (): void => {
    frame = 0;
    set({ steps, state: "writing" });
  };
  try {
    for await (const event of events) {
      if (event.kind === "end") {
        const seconds = (performance.now() - began) / 1000;
        set({ steps, seconds, ...(event.tokens === undefined ? {} : { tokens: event.tokens }) });
        return event.isCut;
      }
      steps = withEvent(steps, event);
      frame ||= requestAnimationFrame(show);
    }
    return false;
  } finally {
    cancelAnimationFrame(frame);
    set({ steps });
  }
}

function withEvent(steps: Step[], event: Exclude<AnswerEvent, { kind: "end" }>): Step[] {
  if (event.kind === "call") return [...steps, event];
  if (event.kind === "result") {
    const { text, isError, pictures } = event;
    return steps.map((step) =>
      step.kind === "call" && step.id === event.id && !step.result
        ? { ...step, result: { text, isError, pictures } }
        : step,
    );
  }
  const last = steps.at(-1);
  if (last?.kind !== "text") return [...steps, event];
  return [...steps.slice(0, -1), { kind: "text", text: last.text + event.text }];
}
