import { chooseModel, model, models } from "../api/models";
import { isSettingsOpen, isSidebarOpen, mode } from "../state/look";
import { startNew } from "../state/store";
import { Icon, IconButton } from "./icons";

export function Header() {
  return (
    <header class="header">
      <IconButton
        name="menu"
        label="Conversations"
        class="narrow-only"
        onClick={() => (isSidebarOpen.value = !isSidebarOpen.value)}
      />
      <ModelChoice />
      {model.value?.abilities.fill && <ModeChoice />}
      <span class="grow" />
      <IconButton
        name="tune"
        label="Settings"
        pressed={isSettingsOpen.value}
        onClick={() => (isSettingsOpen.value = !isSettingsOpen.value)}
      />
      <IconButton name="plus" label="New conversation" class="narrow-only" onClick={begin} />
    </header>
  );
}

function begin(): void {
  mode.value = "chat";
  startNew();
}

function ModelChoice() {
  if (models.value.length < 2) return <span class="model-name">{model.value?.id ?? "GLM"}</span>;
  return (
    <select
      class="model-name"
      aria-label="Model"
      value={model.value?.id}
      onChange={(event) => chooseModel(event.currentTarget.value)}
    >
      {models.value.map(({ id }) => (
        <option value={id}>{id}</option>
      ))}
    </select>
  );
}

function ModeChoice() {
  return (
    <div class="segmented" role="group" aria-label="What to do">
      <button type="button" aria-pressed={mode.value === "chat"} onClick={() => (mode.value = "chat")}>
        <Icon name="chat" />
        <span>Chat</span>
      </button>
      <button type="button" aria-pressed={mode.value === "fill"} onClick={() => (mode.value = "fill")}>
        <Icon name="blank" />
        <span>Fill blanks</span>
      </button>
    </div>
  );
}
