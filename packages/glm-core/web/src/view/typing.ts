/** What the text boxes have in common. */

import { useLayoutEffect, useRef } from "preact/hooks";

/** Whether a key sends: Enter, but not while an input method composes a word with it. */
export function isSending(event: KeyboardEvent): boolean {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}

/** Takes the user to the message box.
 *
 * Chromium gives the focus back to it when a dialog closes, but leaves the caret in the dialog, and
 * then nothing that is typed arrives: only a box that had lost the focus gets the caret with it.
 */
export function focusComposer(): void {
  const composer = document.getElementById("composer");
  composer?.blur();
  composer?.focus();
}

/** A box that is as high as its text. */
export function useGrowing(text: string, hasFocus = false) {
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    const element = area.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [text]);
  useLayoutEffect(() => {
    if (!hasFocus) return;
    area.current?.focus();
    area.current?.setSelectionRange(text.length, text.length);
  }, []);
  return area;
}
