import { useEffect } from "preact/hooks";
import { asTrouble, isReachable, needsKey } from "../api/http";
import { loadModels, model, waitForServer } from "../api/models";
import { stop } from "../chat/answer";
import { stopFilling } from "../chat/fill";
import { shown } from "../markdown/text";
import { announcement, isSettingsOpen, isSidebarOpen, mode, notice, tell } from "../state/look";
import { current, isFull } from "../state/store";
import { Chat } from "./Chat";
import { Fill } from "./Fill";
import { Header } from "./Header";
import { KeyDialog } from "./KeyDialog";
import { Settings } from "./Settings";
import { Sidebar } from "./Sidebar";

export function App() {
  useEffect(() => void begin(), []);
  useEffect(() => {
    document.addEventListener("keydown", onEscape);
    return () => document.removeEventListener("keydown", onEscape);
  }, []);
  const isFilling = mode.value === "fill" && model.value?.abilities.fill;
  return (
    <div class="app">
      <a class="skip" href="#composer">
        Skip to the message box
      </a>
      <Sidebar />
      <div class="main">
        <Header />
        <Banner />
        {isFilling ? <Fill /> : <Chat />}
      </div>
      <Settings />
      <KeyDialog />
      <p class="off-screen" role="status" aria-live="polite">
        {announcement.value}
      </p>
      {notice.value && <p class="notice">{shown(notice.value)}</p>}
    </div>
  );
}

async function begin(): Promise<void> {
  try {
    await loadModels();
  } catch (error) {
    const trouble = asTrouble(error);
    if (trouble.kind === "key") return;
    tell(trouble.message);
    waitForServer();
  }
}

/** Escape closes what is open; with nothing open it stops what is being written. */
function onEscape(event: KeyboardEvent): void {
  if (event.key !== "Escape" || needsKey.value) return;
  if (isSidebarOpen.value || isSettingsOpen.value) {
    isSidebarOpen.value = false;
    isSettingsOpen.value = false;
    return;
  }
  stop(current.value.id);
  stopFilling();
}

function Banner() {
  if (!isReachable.value) {
    return (
      <p class="banner" role="alert">
        The server cannot be reached. Your conversations are safe in this browser; the page looks for
        the server until it is back.
      </p>
    );
  }
  if (isFull.value) {
    return (
      <p class="banner" role="alert">
        This browser has no more room for conversations: export or delete some, or the newest will be
        lost when the page is closed.
      </p>
    );
  }
  return null;
}
