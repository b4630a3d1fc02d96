import { CodeBlock } from "../markdown/code";
import { shown } from "../markdown/text";
import type { ToolStep } from "../state/types";
import { Icon } from "./icons";

/** A call of a tool, what it was given, and what came of it. */
export function ToolCall({ step }: { step: ToolStep }) {
  const { name, input, isCode, result } = step;
  // Where the model reads [Image], the reader sees the picture.
  const text = (result?.pictures.length ? result.text.replace(/^\[Image\]$/gm, "") : (result?.text ?? "")).trim();
  return (
    <details class={`tool ${result?.isError ? "is-error" : ""}`} open={isCode || !result}>
      <summary>
        <Icon name={isCode ? "code" : "tool"} />
        <span>{isCode ? "Code interpreter" : shown(name)}</span>
        <small>{result ? (result.isError ? "failed" : "done") : "running"}</small>
        <Icon name="chevron" />
      </summary>
      <CodeBlock code={isCode ? input : pretty(input)} language={isCode ? "python" : "json"} />
      {result && (
        <div class="tool-result">
          {text && <pre tabIndex={0}>{shown(text)}</pre>}
          {result.pictures.map((url) => (
            <img src={url} alt="Picture that the code drew" />
          ))}
        </div>
      )}
    </details>
  );
}

function pretty(input: string): string {
  try {
    return JSON.stringify(JSON.parse(input), null, 2);
  } catch {
    return input;
  }
}
