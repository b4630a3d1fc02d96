/** Blocks of code with their colours and a button that copies them. */

import type { ElementContent, RootContent } from "hast";
import type { ComponentChild } from "preact";
import { useMemo } from "preact/hooks";
import { CopyButton } from "../view/CopyButton";
import { coloured } from "./highlight";
import { shown } from "./text";

interface Props {
  code: string;
  language?: string;
  /** Shown in the head instead of the language. */
  title?: string;
}

export function CodeBlock({ code, language = "", title }: Props) {
  const known = language.toLowerCase().slice(0, 24);
  const content = useMemo(() => {
    const tree = coloured(code, known);
    return tree ? tree.children.map(node) : shown(code);
  }, [code, known]);
  return (
    <figure class="code">
      <figcaption>
        <span>{title ?? (known || "text")}</span>
        <CopyButton text={code} label="Copy code" />
      </figcaption>
      <pre tabIndex={0} dir="ltr">
        <code>{content}</code>
      </pre>
    </figure>
  );
}

function node(one: RootContent | ElementContent): ComponentChild {
  if (one.type === "text") return shown(one.value);
  if (one.type !== "element") return null;
  const names = one.properties.className;
  return <span class={Array.isArray(names) ? names.join(" ") : ""}>{one.children.map(node)}</span>;
}
