import { useRef, useState } from "preact/hooks";
import { isRunning, stop } from "../chat/answer";
import { isSidebarOpen, mode, tell, theme, type Theme } from "../state/look";
import { current, open, ordered, remove, rename, startNew } from "../state/store";
import { load, save, saveAll } from "../state/transfer";
import { shown } from "../markdown/text";
import type { Conversation } from "../state/types";
import { Icon, IconButton, type IconName } from "./icons";

export function Sidebar() {
  return (
    <>
      {isSidebarOpen.value && <div class="veil" onClick={() => (isSidebarOpen.value = false)} />}
      <nav class={`sidebar ${isSidebarOpen.value ? "is-open" : ""}`} aria-label="Conversations">
        <div class="sidebar-head">
          <span class="brand">
            <img src="./assets/icon.svg" alt="" width="24" height="24" /> GLM
          </span>
          <IconButton
            name="close"
            label="Close"
            class="narrow-only"
            onClick={() => (isSidebarOpen.value = false)}
          />
        </div>
        <button type="button" class="new" onClick={begin}>
          <Icon name="plus" /> New conversation
        </button>
        <ul class="conversations">
          {ordered.value.map((one) => (
            <Entry key={one.id} conversation={one} />
          ))}
        </ul>
        <Foot />
      </nav>
    </>
  );
}

function begin(): void {
  mode.value = "chat";
  startNew();
  isSidebarOpen.value = false;
}

function Entry({ conversation }: { conversation: Conversation }) {
  const { id, title } = conversation;
  const [isRenaming, setRenaming] = useState(false);
  const [isDeleting, setDeleting] = useState(false);
  const isCurrent = mode.value === "chat" && current.value.id === id;
  if (isRenaming) return <Rename conversation={conversation} onEnd={() => setRenaming(false)} />;
  if (isDeleting) {
    return (
      <li class="entry is-asking">
        <span>Delete it?</span>
        <button type="button" class="danger" ref={(button) => button?.focus()} onClick={() => discard(id)}>
          Delete
        </button>
        <button type="button" onClick={() => setDeleting(false)}>
          Keep
        </button>
      </li>
    );
  }
  return (
    <li class={`entry ${isCurrent ? "is-current" : ""}`}>
      <button type="button" class="entry-title" aria-current={isCurrent} onClick={() => show(id)}>
        {isRunning(id) && <span class="pulse" />}
        <span dir="auto">{shown(title) || "New conversation"}</span>
      </button>
      <span class="entry-actions">
        <IconButton name="edit" label={`Rename ${title}`} onClick={() => setRenaming(true)} />
        <IconButton name="down" label={`Export ${title}`} onClick={() => save([conversation], title)} />
        <IconButton name="trash" label={`Delete ${title}`} onClick={() => setDeleting(true)} />
      </span>
    </li>
  );
}

function show(id: string): void {
  mode.value = "chat";
  open(id);
  isSidebarOpen.value = false;
}

function discard(id: string): void {
  stop(id);
  remove(id);
}

function Rename({ conversation, onEnd }: { conversation: Conversation; onEnd: () => void }) {
  const input = useRef<HTMLInputElement>(null);
  const finish = (): void => {
    rename(conversation.id, input.current?.value ?? "");
    onEnd();
  };
  return (
    <li class="entry is-asking">
      <input
        ref={(element) => {
          if (element && !input.current) element.select();
          input.current = element;
        }}
        aria-label="New title"
        defaultValue={conversation.title}
        maxLength={200}
        onBlur={finish}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.isComposing) finish();
          if (event.key === "Escape") {
            event.stopPropagation();
            onEnd();
          }
        }}
      />
    </li>
  );
}

const THEMES: [Theme, IconName, string][] = [
  ["system", "system", "As the system"],
  ["light", "sun", "Light"],
  ["dark", "moon", "Dark"],
];

function Foot() {
  const chooser = useRef<HTMLInputElement>(null);
  return (
    <div class="sidebar-foot">
      <div class="segmented" role="group" aria-label="Colours">
        {THEMES.map(([value, icon, label]) => (
          <button
            type="button"
            aria-pressed={theme.value === value}
            aria-label={label}
            title={label}
            onClick={() => (theme.value = value)}
          >
            <Icon name={icon} />
          </button>
        ))}
      </div>
      <span class="grow" />
      <IconButton name="up" label="Import conversations" onClick={() => chooser.current?.click()} />
      <IconButton name="down" label="Export all conversations" onClick={saveAll} />
      <input
        ref={chooser}
        class="off-screen"
        type="file"
        accept="application/json,.json"
        aria-label="Conversations to import"
        tabIndex={-1}
        onChange={(event) => {
          const input = event.currentTarget;
          void importFile(input.files?.[0]).finally(() => (input.value = ""));
        }}
      />
    </div>
  );
}

async function importFile(file: File | undefined): Promise<void> {
  if (!file) return;
  try {
    const count = await load(file);
    tell(count === 1 ? "One conversation imported." : `${count} conversations imported.`);
  } catch (error) {
    tell(error instanceof Error ? error.message : String(error));
  }
}
