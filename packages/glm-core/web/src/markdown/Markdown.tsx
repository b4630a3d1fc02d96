/** Markdown as nodes: marked reads it, and every token becomes an element of our own making.
 *
 * HTML in the text is text. Pictures are not loaded: their address is shown. Links lead out of the
 * page only, over http, https and mailto.
 */

import { Marked, type Token, type Tokens } from "marked";
import { Component, type ComponentChild, type ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { CodeBlock } from "./code";
import { mathBlock, mathInline } from "./math";
import { decoded, safeLink, shown } from "./text";

/** Beyond these a text is shown as it is: reading and drawing it would stall the page. */
const MAX_CHARS = 200_000;
const MAX_LINE = 20_000;
const MAX_DEPTH = 40;

const reader = new Marked({ gfm: true, breaks: true }, { extensions: [mathBlock, mathInline] });

export function Markdown({ text }: { text: string }) {
  const tokens = useMemo(() => read(text), [text]);
  if (!tokens) return <pre class="plain">{shown(text)}</pre>;
  return (
    <div class="markdown" dir="auto">
      {tokens.map((token, index) => (
        <Block key={index} token={token} />
      ))}
    </div>
  );
}

function read(text: string): Token[] | undefined {
  if (text.length > MAX_CHARS || text.split("\n").some((line) => line.length > MAX_LINE)) return undefined;
  try {
    const tokens = reader.lexer(text);
    return isShallow(tokens, MAX_DEPTH) ? tokens : undefined;
  } catch (error) {
    if (error instanceof RangeError) return undefined; // thousands of quotes in each other
    throw error;
  }
}

function isShallow(tokens: Token[], depth: number): boolean {
  if (depth === 0) return false;
  return tokens.every((token) => {
    const inner = token.type === "list" ? (token as Tokens.List).items : (token as Tokens.Generic).tokens;
    return !inner || isShallow(inner, depth - 1);
  });
}

/** While an answer is written only its last block changes: the others are not made again. */
class Block extends Component<{ token: Token }> {
  override shouldComponentUpdate({ token }: { token: Token }): boolean {
    return token.type !== this.props.token.type || token.raw !== this.props.token.raw;
  }

  override render({ token }: { token: Token }): ComponentChild {
    return block(token);
  }
}

function block(token: Token): ComponentChild {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "hr":
      return <hr />;
    case "code":
      return <CodeBlock code={(token as Tokens.Code).text} language={languageOf(token as Tokens.Code)} />;
    case "heading":
      return heading(token as Tokens.Heading);
    case "blockquote":
      return <blockquote>{blocks((token as Tokens.Blockquote).tokens)}</blockquote>;
    case "list":
      return listOf(token as Tokens.List);
    case "table":
      return tableOf(token as Tokens.Table);
    case "math":
      return <pre class="math">{shown(token.raw.trim())}</pre>;
    case "html":
      return <p>{shown(token.raw.trimEnd())}</p>;
    case "paragraph":
      return <p dir="auto">{inlines((token as Tokens.Paragraph).tokens)}</p>;
    case "text":
      return <>{inline(token)}</>;
    default:
      return <p>{shown(token.raw)}</p>;
  }
}

const blocks = (tokens: Token[]): ComponentChildren => tokens.map(block);
const inlines = (tokens: Token[] | undefined): ComponentChildren => (tokens ?? []).map(inline);
const languageOf = (token: Tokens.Code): string => token.lang?.match(/^[\w+#.-]+/)?.[0] ?? "";

/** Headings of an answer stand below the page's own. */
function heading({ depth, tokens }: Tokens.Heading): ComponentChild {
  const Tag = `h${Math.min(depth + 2, 6)}` as "h3";
  return <Tag class={`size-${depth}`}>{inlines(tokens)}</Tag>;
}

function listOf({ ordered, start, items }: Tokens.List): ComponentChild {
  const children = items.map((item) => (
    <li class={item.task ? "task" : undefined}>
      {item.task && <input type="checkbox" checked={item.checked === true} disabled />}
      {blocks(item.tokens.filter(({ type }) => type !== "checkbox"))}
    </li>
  ));
  return ordered ? <ol start={Number(start) || 1}>{children}</ol> : <ul>{children}</ul>;
}

function tableOf({ header, rows }: Tokens.Table): ComponentChild {
  const cell = (Tag: "th" | "td") => (one: Tokens.TableCell) => (
    <Tag class={one.align ? `to-${one.align}` : undefined}>{inlines(one.tokens)}</Tag>
  );
  return (
    <div class="table" tabIndex={0}>
      <table>
        {header.some(({ text }) => text) && (
          <thead>
            <tr>{header.map(cell("th"))}</tr>
          </thead>
        )}
        <tbody>
          {rows.map((row) => (
            <tr>{row.map(cell("td"))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(token: Token): ComponentChild {
  switch (token.type) {
    case "strong":
      return <strong>{inlines(token.tokens)}</strong>;
    case "em":
      return <em>{inlines(token.tokens)}</em>;
    case "del":
      return <del>{inlines(token.tokens)}</del>;
    case "br":
      return <br />;
    case "codespan":
      return <code dir="ltr">{shown((token as Tokens.Codespan).text)}</code>;
    case "math":
      return <code class="math">{shown(token.raw)}</code>;
    case "checkbox":
      return null; // the list item has drawn it
    case "escape":
      return shown((token as Tokens.Escape).text);
    case "link":
      return link(token as Tokens.Link);
    case "image":
      return picture(token as Tokens.Image);
    case "text":
      return token.tokens ? <>{inlines(token.tokens)}</> : shown(decoded((token as Tokens.Text).text));
    default:
      return shown(token.raw); // HTML too
  }
}

function link({ href, tokens, raw }: Tokens.Link): ComponentChild {
  const address = safeLink(href);
  if (!address) return shown(raw);
  return (
    <a href={address} target="_blank" rel="noopener noreferrer nofollow" title={address}>
      {inlines(tokens)}
    </a>
  );
}

function picture({ href, text }: Tokens.Image): ComponentChild {
  const address = safeLink(href);
  const name = text || "picture";
  return (
    <span class="unloaded" title="Pictures that a model names are not loaded">
      {address ? (
        <a href={address} target="_blank" rel="noopener noreferrer nofollow">
          {shown(`[${name}] ${address}`)}
        </a>
      ) : (
        shown(`[${name}]`)
      )}
    </span>
  );
}
