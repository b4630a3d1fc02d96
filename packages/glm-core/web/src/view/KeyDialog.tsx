import { useLayoutEffect, useRef } from "preact/hooks";
import { apiKey, asTrouble, needsKey, setKey } from "../api/http";
import { loadModels } from "../api/models";
import { tell } from "../state/look";
import { focusComposer } from "./typing";

export function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const isOpen = needsKey.value;
  useLayoutEffect(() => {
    if (isOpen) dialog.current?.showModal();
    else if (dialog.current?.open) {
      dialog.current.close();
      focusComposer();
    }
  }, [isOpen]);
  const enter = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    setKey(String(data.get("key") ?? "").trim(), data.get("keep") === "on");
    try {
      await loadModels();
      needsKey.value = false;
    } catch (error) {
      const trouble = asTrouble(error);
      if (trouble.kind === "key") return; // the dialog says so
      needsKey.value = false;
      tell(trouble.message);
    }
  };
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="key-title" onCancel={() => (needsKey.value = false)}>
      <form onSubmit={(event) => void enter(event)}>
        <h2 id="key-title">API key</h2>
        <p>
          {apiKey.value
            ? "The server refused this key. Ask whoever runs the server for another one."
            : "This server answers only with a key. Whoever runs it can tell you one."}
        </p>
        <label class="field">
          <span>Key</span>
          <input name="key" type="password" autocomplete="off" required />
        </label>
        <label class="tick">
          <input name="keep" type="checkbox" /> Keep it in this browser
        </label>
        <div class="dialog-actions">
          <button type="button" class="quiet" onClick={() => (needsKey.value = false)}>
            Cancel
          </button>
          <button type="submit" class="primary">
            Use this key
          </button>
        </div>
      </form>
    </dialog>
  );
}
