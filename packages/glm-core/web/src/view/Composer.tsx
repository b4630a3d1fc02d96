import { useRef, useState } from "preact/hooks";
import { readDocument } from "../api/documents";
import { asTrouble } from "../api/http";
import { canUseTools, model, workbench } from "../api/models";
import { isRunning, send, stop } from "../chat/answer";
import { readPicture } from "../chat/picture";
import { shown } from "../markdown/text";
import { draft } from "../state/draft";
import { tell } from "../state/look";
import { change, current } from "../state/store";
import type { Conversation, Picture } from "../state/types";
import { Icon, IconButton } from "./icons";
import { isSending, useGrowing } from "./typing";

interface Props {
  conversation: Conversation;
  editLast: () => void;
}

export function Composer({ conversation, editLast }: Props) {
  const [pictures, setPictures] = useState<Picture[]>([]);
  const [numReading, setNumReading] = useState(0);
  const area = useGrowing(draft.value, true);
  const isBusy = isRunning(conversation.id);
  const canSend = !isBusy && !numReading && !!model.value && (draft.value.trim() !== "" || pictures.length > 0);
  const submit = (): void => {
    if (!canSend) return;
    send(conversation, draft.value.trim(), pictures);
    draft.value = "";
    setPictures([]);
    area.current?.focus();
  };
  const take = async (files: Iterable<File>): Promise<void> => {
    for (const file of files) {
      setNumReading((count) => count + 1);
      try {
        const picture = await takeFile(file, conversation.id);
        if (picture) setPictures((before) => [...before, picture]);
      } catch (error) {
        tell(asTrouble(error).message);
      }
      setNumReading((count) => count - 1);
    }
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (isSending(event)) {
      event.preventDefault();
      submit();
    } else if (event.key === "ArrowUp" && !draft.value && !isBusy) {
      event.preventDefault();
      editLast();
    }
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        void take(event.dataTransfer?.files ?? []);
      }}
    >
      <div class="box">
      <Attached conversation={conversation} pictures={pictures} setPictures={setPictures} numReading={numReading} />
      <textarea
        id="composer"
        ref={area}
        rows={1}
        dir="auto"
        aria-label="Message"
        placeholder="Write a message"
        value={draft.value}
        onInput={(event) => (draft.value = event.currentTarget.value)}
        onKeyDown={onKeyDown}
        onPaste={(event) => {
          const files = event.clipboardData?.files;
          if (files?.length) void take(files);
        }}
      />
      <div class="composer-row">
        <Attach take={take} />
        {conversation.usesTools && canUseTools.value && (
          <span class="chip quiet-chip" title={workbench.value.tools.join(", ")}>
            <Icon name="tool" /> Tools
          </span>
        )}
        <span class="grow" />
        {isBusy ? (
          <IconButton name="stop" label="Stop" class="round" onClick={() => stop(conversation.id)} />
        ) : (
          <button type="submit" class="icon-button round" aria-label="Send" title="Send (Enter)" disabled={!canSend}>
            <Icon name="send" />
          </button>
        )}
      </div>
      </div>
      <small class="caution">Models make mistakes. Check what matters.</small>
    </form>
  );
}

/** Reads a file: a picture is returned, a document is added to the conversation. */
async function takeFile(file: File, id: string): Promise<Picture | undefined> {
  const isPicture = file.type.startsWith("image/");
  if (isPicture && model.value?.abilities.images) return readPicture(file);
  if (isPicture) throw new Error("This model has no eyes: it cannot look at pictures.");
  const kinds = workbench.value.documents;
  if (!kinds.some((ending) => file.name.toLowerCase().endsWith(ending))) {
    throw new Error(`${file.name} cannot be read: choose one of ${kinds.join(", ")}.`);
  }
  const document = await readDocument(file);
  const known = current.value.id === id ? current.value : undefined;
  if (known) change(id, { documents: [...known.documents, document], title: known.title || file.name });
  tell(`${file.name}: ${document.passages.length} passages read.`);
  return undefined;
}

function Attach({ take }: { take: (files: Iterable<File>) => Promise<void> }) {
  const chooser = useRef<HTMLInputElement>(null);
  const hasEyes = model.value?.abilities.images === true;
  const accept = [...workbench.value.documents, ...(hasEyes ? ["image/*"] : [])].join(",");
  if (!accept) return null;
  const label = hasEyes ? "Attach pictures or documents" : "Attach documents";
  return (
    <>
      <IconButton name="clip" label={label} onClick={() => chooser.current?.click()} />
      <input
        ref={chooser}
        class="off-screen"
        type="file"
        multiple
        accept={accept}
        aria-label="Files to attach"
        tabIndex={-1}
        onChange={(event) => {
          const input = event.currentTarget;
          void take([...(input.files ?? [])]).finally(() => (input.value = ""));
        }}
      />
    </>
  );
}

interface AttachedProps {
  conversation: Conversation;
  pictures: Picture[];
  setPictures: (pictures: Picture[]) => void;
  numReading: number;
}

function Attached({ conversation, pictures, setPictures, numReading }: AttachedProps) {
  const { id, documents } = conversation;
  if (!documents.length && !pictures.length && !numReading) return null;
  return (
    <ul class="attached" aria-label="Attached">
      {documents.map((document) => (
        <li class="chip">
          <Icon name="file" />
          <span dir="auto">{shown(document.name)}</span>
          <IconButton
            name="close"
            label={`Remove ${document.name}`}
            onClick={() => change(id, { documents: documents.filter((one) => one !== document) })}
          />
        </li>
      ))}
      {pictures.map((picture) => (
        <li class="chip">
          <img src={picture.url} alt="" />
          <span dir="auto">{shown(picture.name)}</span>
          <IconButton
            name="close"
            label={`Remove ${picture.name}`}
            onClick={() => setPictures(pictures.filter((one) => one !== picture))}
          />
        </li>
      ))}
      {numReading > 0 && <li class="chip">Reading...</li>}
    </ul>
  );
}
