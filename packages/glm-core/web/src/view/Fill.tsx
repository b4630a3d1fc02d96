import { useEffect, useRef } from "preact/hooks";
import { BLANK } from "../api/fill";
import { fill, filledText, isFilling, joined, result, stopFilling, text, trouble } from "../chat/fill";
import { shown } from "../markdown/text";
import { CopyButton } from "./CopyButton";
import { Icon, IconButton } from "./icons";

const MARKER = "[MASK]";

/** Text with blanks, and the same text with them filled. */
export function Fill() {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => area.current?.focus(), []);
  const count = text.value.match(BLANK)?.length ?? 0;
  return (
    <main class="fill">
      <section>
        <h1>Fill the blanks</h1>
        <p class="hint">
          The model reads what stands before and behind each blank. Without a blank it goes on from
          the end.
        </p>
        <div class="box">
          <textarea
            id="composer"
            ref={area}
            dir="auto"
            rows={4}
            aria-label="Text with blanks"
            value={text.value}
            onInput={(event) => (text.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void fill();
            }}
          />
          <div class="composer-row">
            <button type="button" class="quiet" onClick={() => area.current && insertBlank(area.current)}>
              <Icon name="blank" /> Insert blank
            </button>
            <span class="grow" />
            <small>{count === 1 ? "1 blank" : `${count} blanks`}</small>
            {isFilling.value ? (
              <button type="button" class="primary" onClick={stopFilling}>
                <Icon name="stop" /> Stop
              </button>
            ) : (
              <button
                type="button"
                class="primary"
                title="Ctrl+Enter"
                disabled={!text.value.trim()}
                onClick={() => void fill()}
              >
                Fill
              </button>
            )}
          </div>
        </div>
      </section>
      <Result />
    </main>
  );
}

/** Puts a blank in place of what is selected. */
function insertBlank(area: HTMLTextAreaElement): void {
  area.focus();
  area.setRangeText(MARKER, area.selectionStart, area.selectionEnd, "end");
  text.value = area.value;
}

function Result() {
  if (trouble.value) {
    return (
      <div class="failure" role="alert">
        <p>{shown(trouble.value.message)}</p>
        <button type="button" onClick={() => void fill()}>
          <Icon name="retry" /> Try again
        </button>
      </div>
    );
  }
  if (!result.value) return null;
  const { pieces, fills } = result.value;
  return (
    <section class="filled" aria-label="Filled text" aria-busy={isFilling.value}>
      <p dir="auto">
        {pieces.map((piece, index) => (
          <>
            {shown(piece)}
            {index < fills.length && <Blank fill={joined(piece, fills[index] ?? "")} />}
          </>
        ))}
      </p>
      {!isFilling.value && (
        <div class="actions">
          <CopyButton text={filledText()} label="Copy text" />
          <IconButton name="retry" label="Fill again" onClick={() => void fill()} />
          <IconButton name="edit" label="Go on with this text" onClick={() => (text.value = filledText())} />
        </div>
      )}
    </section>
  );
}

function Blank({ fill }: { fill: string }) {
  if (fill) return <mark>{shown(fill)}</mark>;
  return <mark class="is-empty">{isFilling.value ? "..." : "(nothing)"}</mark>;
}
