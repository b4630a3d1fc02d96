/** Server-sent events of a POST request. */

import { ServerTrouble } from "./http";

/** Gives the JSON of each event until [DONE]; throws ServerTrouble when the stream breaks off. */
export async function* eventsOf(response: Response): AsyncGenerator<unknown> {
  const body = response.body;
  if (!body) throw new ServerTrouble("broken", "The server sent no answer.");
  for await (const data of dataOf(body)) {
    if (data === "[DONE]") return;
    const event = parsed(data);
    const error = (event as { error?: { message?: string; code?: string } }).error;
    if (error) throw new ServerTrouble("broken", error.message ?? "The server broke off the answer.");
    yield event;
  }
  throw new ServerTrouble("broken", "The connection ended before the answer did. What came is kept.");
}

function parsed(data: string): unknown {
  try {
    return JSON.parse(data) as unknown;
  } catch {
    throw new ServerTrouble("broken", "The server sent something that is no event.");
  }
}

async function* dataOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const lines = rest.split(/\r?\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("data:")) yield line.slice(5).trim();
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

async function read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<ReadableStreamReadResult<Uint8Array>> {
  try {
    return await reader.read();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ServerTrouble("broken", "The connection was lost. What came is kept.");
  }
}
