/** What stands in the message box; a reload keeps it. */

import { effect, signal } from "@preact/signals";

const DRAFT = "glm.draft";

export const draft = signal(sessionStorage.getItem(DRAFT) ?? "");

effect(() => sessionStorage.setItem(DRAFT, draft.value));
