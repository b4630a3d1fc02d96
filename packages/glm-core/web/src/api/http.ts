/** Requests to the server this page came from, and what can go wrong with them. */

import { signal } from "@preact/signals";
import type { Trouble, TroubleKind } from "../state/types";
import { kept, keptInTab } from "../state/keep";

const KEY = "glm.key";

/** The API key, for this tab only unless the user wants it kept. */
export const apiKey = signal(keptInTab.get(KEY) ?? kept.get(KEY) ?? "");
export const needsKey = signal(false);
/** Whether the last request reached the server. */
export const isReachable = signal(true);

export function setKey(key: string, isKept: boolean): void {
  apiKey.value = key;
  keptInTab.set(KEY, key);
  kept.remove(KEY);
  if (isKept && key) kept.set(KEY, key);
}

export class ServerTrouble extends Error {
  constructor(
    readonly kind: TroubleKind,
    message: string,
    readonly retryAfter?: number,
  ) {
    super(message);
  }
}

/** Asks the server; throws ServerTrouble, or the AbortError of a signal. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (apiKey.value) headers.set("Authorization", `Bearer ${apiKey.value}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, credentials: "omit" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    isReachable.value = false;
    throw new ServerTrouble("gone", "The server cannot be reached. Is it still running?");
  }
  isReachable.value = true;
  if (!response.ok) throw await troubleOf(response);
  return response;
}

export async function postJson(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: signal ?? null,
  });
}

async function troubleOf(response: Response): Promise<ServerTrouble> {
  const told = messageIn(await response.text().catch(() => ""));
  const retry = Number(response.headers.get("Retry-After"));
  const seconds = Number.isFinite(retry) && retry > 0 ? Math.ceil(retry) : undefined;
  switch (response.status) {
    case 401:
      needsKey.value = true;
      return new ServerTrouble("key", apiKey.value ? "The server refused this API key." : "The server asks for an API key.");
    case 429:
      return new ServerTrouble("busy", "The server is busy with other requests.", seconds ?? 5);
    case 503:
      return new ServerTrouble("draining", told || "The server is shutting down or not ready yet.", seconds ?? 10);
    default:
      return new ServerTrouble("refused", told || `The server answered with status ${response.status}.`);
  }
}

function messageIn(body: string): string {
  try {
    const data = JSON.parse(body) as { error?: { message?: unknown }; detail?: unknown };
    const message = data.error?.message ?? data.detail;
    return typeof message === "string" ? message : "";
  } catch {
    return "";
  }
}

export function asTrouble(error: unknown): Trouble {
  if (error instanceof ServerTrouble) {
    const { kind, message, retryAfter } = error;
    return retryAfter === undefined ? { kind, message } : { kind, message, retryAfter };
  }
  return { kind: "broken", message: error instanceof Error ? error.message : String(error) };
}
