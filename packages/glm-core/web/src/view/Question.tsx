import { useState } from "preact/hooks";
import { edit, isRunning } from "../chat/answer";
import { shown } from "../markdown/text";
import type { Conversation, UserMessage } from "../state/types";
import { CopyButton } from "./CopyButton";
import { IconButton } from "./icons";
import { focusComposer, isSending, useGrowing } from "./typing";

interface Props {
  conversation: Conversation;
  message: UserMessage;
  isEditing: boolean;
  setEditing: (id: string) => void;
}

export function Question({ conversation, message, isEditing, setEditing }: Props) {
  return (
    <article class="question" aria-label="You">
      {message.pictures.length > 0 && (
        <div class="pictures">
          {message.pictures.map(({ url, name }) => (
            <img src={url} alt={name} />
          ))}
        </div>
      )}
      {isEditing ? (
        <Editor conversation={conversation} message={message} end={() => setEditing("")} />
      ) : (
        <>
          <div class="bubble" dir="auto">
            {shown(message.text)}
          </div>
          <div class="actions">
            <CopyButton text={message.text} label="Copy message" />
            <IconButton
              name="edit"
              label="Edit message"
              disabled={isRunning(conversation.id)}
              onClick={() => setEditing(message.id)}
            />
          </div>
        </>
      )}
    </article>
  );
}

function Editor({ conversation, message, end }: Omit<Props, "isEditing" | "setEditing"> & { end: () => void }) {
  const [text, setText] = useState(message.text);
  const area = useGrowing(text, true);
  const save = (): void => {
    if (!text.trim() || isRunning(conversation.id)) return;
    end();
    edit(conversation, message.id, text);
    focusComposer();
  };
  return (
    <div class="editor">
      <textarea
        ref={area}
        aria-label="Edit message"
        dir="auto"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (isSending(event)) {
            event.preventDefault();
            save();
          } else if (event.key === "Escape") {
            event.stopPropagation();
            end();
            focusComposer();
          }
        }}
      />
      <div class="editor-actions">
        <small>What follows this message is replaced.</small>
        <button type="button" class="quiet" onClick={end}>
          Cancel
        </button>
        <button type="button" class="primary" disabled={!text.trim()} onClick={save}>
          Send
        </button>
      </div>
    </div>
  );
}
