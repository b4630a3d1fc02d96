/** How the page looks and which part of it is open. */

import { effect, signal } from "@preact/signals";
import { kept } from "./keep";

export type Theme = "system" | "light" | "dark";
export type Mode = "chat" | "fill";

const THEME = "glm.theme";
const MODE = "glm.mode";

export const theme = signal<Theme>((kept.get(THEME) as Theme | null) ?? "system");
export const mode = signal<Mode>((kept.get(MODE) as Mode | null) ?? "chat");
export const isSidebarOpen = signal(false);
export const isSettingsOpen = signal(false);
/** A line for the user, shown for a while. */
export const notice = signal("");
/** What screen readers are told. */
export const announcement = signal("");

effect(() => {
  kept.set(THEME, theme.value);
  document.documentElement.dataset.theme = theme.value;
});
effect(() => void kept.set(MODE, mode.value));

let timer = 0;

export function tell(line: string): void {
  notice.value = line;
  announcement.value = line;
  clearTimeout(timer);
  timer = window.setTimeout(() => (notice.value = ""), 5000);
}
