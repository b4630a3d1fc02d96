/** What a conversation is made of; it is stored and exported in this shape. */

export interface Picture {
  /** A `data:` address. */
  url: string;
  name: string;
}

export interface Passage {
  text: string;
  /** Counted from 1; 0 where the file has no pages. */
  page: number;
}

export interface Document {
  id: string;
  name: string;
  passages: Passage[];
}

/** A passage that was put before a question. */
export interface Source {
  document: string;
  page: number;
  text: string;
}

export interface ToolStep {
  kind: "call";
  id: string;
  name: string;
  /** JSON, or the code for a tool that takes plain text. */
  input: string;
  isCode: boolean;
  /** Absent while the tool runs. */
  result?: { text: string; isError: boolean; pictures: string[] };
}

export interface TextStep {
  kind: "text";
  text: string;
}

export type Step = TextStep | ToolStep;

export type State = "waiting" | "writing" | "done" | "stopped" | "cut" | "failed";

export interface UserMessage {
  role: "user";
  id: string;
  text: string;
  pictures: Picture[];
}

export interface AnswerMessage {
  role: "assistant";
  id: string;
  steps: Step[];
  state: State;
  sources: Source[];
  model: string;
  /** Of a failed answer. */
  trouble?: Trouble;
  /** Tokens and seconds, where the server tells them. */
  tokens?: number;
  seconds?: number;
}

export type Message = UserMessage | AnswerMessage;

export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  max_tokens?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  seed?: number;
  stop?: string[];
}

/** How answers are made; a new conversation begins with those of the one before. */
export interface Settings {
  system: string;
  sampling: Sampling;
  usesTools: boolean;
}

export interface Conversation extends Settings {
  id: string;
  title: string;
  /** Whether the user chose the title. */
  isNamed: boolean;
  changed: number;
  messages: Message[];
  documents: Document[];
}

export type TroubleKind = "busy" | "draining" | "gone" | "key" | "refused" | "broken";

/** Why an answer did not come. */
export interface Trouble {
  kind: TroubleKind;
  message: string;
  /** Seconds after which the server asks to be tried again. */
  retryAfter?: number;
}
