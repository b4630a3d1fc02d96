import { useState } from "preact/hooks";
import { announcement, tell } from "../state/look";
import { IconButton } from "./icons";

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [isDone, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    if (!(await copied(text))) {
      tell("The browser did not allow copying.");
      return;
    }
    announcement.value = "Copied.";
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return <IconButton name={isDone ? "check" : "copy"} label={isDone ? "Copied" : label} onClick={() => void copy()} />;
}

/** The clipboard of browsers is for https and localhost only; elsewhere the old way still works. */
async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "off-screen";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}
