/** What stands in the message box; a reload keeps it. */

import { effect, signal } from "@preact/signals";
import { keptInTab } from "./keep";

const DRAFT = "glm.draft";

export const draft = signal(keptInTab.get(DRAFT) ?? "");

effect(() => void keptInTab.set(DRAFT, draft.value));
