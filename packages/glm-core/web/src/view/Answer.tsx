import { useEffect, useState } from "preact/hooks";
import { isRunning, retry } from "../chat/answer";
import { needsKey } from "../api/http";
import { Markdown } from "../markdown/Markdown";
import { shown } from "../markdown/text";
import type { AnswerMessage, Conversation, Source, Trouble } from "../state/types";
import { CopyButton } from "./CopyButton";
import { Icon, IconButton } from "./icons";
import { ToolCall } from "./ToolCall";

interface Props {
  conversation: Conversation;
  message: AnswerMessage;
  isLast: boolean;
}

export function Answer({ conversation, message, isLast }: Props) {
  const { steps, state, sources } = message;
  const isBusy = state === "waiting" || state === "writing";
  const text = steps.map((step) => (step.kind === "text" ? step.text : "")).join("\n\n").trim();
  const again = (): void => retry(conversation, message.id);
  return (
    <article class={`answer ${isBusy ? "is-busy" : ""}`} aria-label="Answer" aria-busy={isBusy}>
      {steps.map((step, index) =>
        step.kind === "text" ? <Markdown key={index} text={step.text} /> : <ToolCall key={index} step={step} />,
      )}
      {isBusy && !text && !steps.length && <p class="thinking" aria-label="Waiting for the answer"><i /><i /><i /></p>}
      {sources.length > 0 && <Sources sources={sources} />}
      {state === "stopped" && <p class="state">Stopped.</p>}
      {state === "cut" && <p class="state">Cut at its longest. The settings allow longer answers.</p>}
      {state === "done" && !text && !steps.length && <p class="state">The model answered with nothing.</p>}
      {state === "failed" && message.trouble && (
        <Failure trouble={message.trouble} again={again} canRetry={isLast && !isRunning(conversation.id)} />
      )}
      {!isBusy && (
        <div class="actions">
          {text && <CopyButton text={text} label="Copy answer" />}
          <IconButton name="retry" label="Try again" disabled={isRunning(conversation.id)} onClick={again} />
          <Figures message={message} />
        </div>
      )}
    </article>
  );
}

function Figures({ message: { model, tokens, seconds } }: { message: AnswerMessage }) {
  const told = [model];
  if (tokens) told.push(`${tokens} tokens`);
  if (seconds && seconds >= 0.05) told.push(`${seconds.toFixed(1)} s`);
  return <small class="figures">{told.filter(Boolean).join(" · ")}</small>;
}

function Failure({ trouble, again, canRetry }: { trouble: Trouble; again: () => void; canRetry: boolean }) {
  const left = useCountdown(canRetry ? (trouble.retryAfter ?? 0) : 0);
  return (
    <div class="failure" role="alert">
      <p>{shown(trouble.message)}</p>
      {canRetry && trouble.kind === "key" && (
        <button type="button" onClick={() => (needsKey.value = true)}>
          <Icon name="key" /> Enter a key
        </button>
      )}
      {canRetry && (
        <button type="button" onClick={again}>
          <Icon name="retry" /> {left > 0 ? `Try again (better in ${left} s)` : "Try again"}
        </button>
      )}
    </div>
  );
}

function useCountdown(from: number): number {
  const [left, setLeft] = useState(from);
  useEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => setLeft(left - 1), 1000);
    return () => clearTimeout(timer);
  }, [left]);
  return left;
}

function Sources({ sources }: { sources: Source[] }) {
  return (
    <details class="sources">
      <summary>
        <Icon name="chevron" /> {sources.length === 1 ? "One passage" : `${sources.length} passages`} from your documents
      </summary>
      <ol>
        {sources.map(({ document, page, text }) => (
          <li>
            <cite>{shown(page ? `${document}, page ${page}` : document)}</cite>
            <p dir="auto">{shown(text)}</p>
          </li>
        ))}
      </ol>
    </details>
  );
}
