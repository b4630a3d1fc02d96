/** Drawings of 20 by 20, in the colour of the text around them. */

const PATHS = {
  plus: "M10 4v12M4 10h12",
  menu: "M3 6h14M3 10h14M3 14h9",
  close: "M5 5l10 10M15 5L5 15",
  send: "M10 16V4M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  copy: "M7 7V4h9v9h-3M4 7h9v9H4z",
  check: "M4 10.5l4 4 8-9",
  retry: "M15.5 6.5A6.5 6.5 0 1 0 16.5 11M16 3v4h-4",
  edit: "M4 16l.8-3.4L13 4.4a1.4 1.4 0 0 1 2 0l.6.6a1.4 1.4 0 0 1 0 2L7.4 15.2z",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6",
  down: "M10 4v9M6 9.5l4 4 4-4M4 16.5h12",
  up: "M10 13V4M6 7.5l4-4 4 4M4 16.5h12",
  tune: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  clip: "M15.5 9.5l-5.8 5.8a3.4 3.4 0 0 1-4.8-4.8l6-6a2.3 2.3 0 0 1 3.2 3.2l-5.8 5.8a1.1 1.1 0 0 1-1.6-1.6l5-5",
  file: "M6 3h6l3 3v11H6zM12 3v3h3",
  sun: "M10 6.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1",
  moon: "M16 11.5A6.5 6.5 0 0 1 8.5 4a6.5 6.5 0 1 0 7.5 7.5z",
  system: "M3 4h14v9H3zM7 16.5h6M10 13v3.5",
  chat: "M4 4.5h12v9H9l-3.5 3v-3H4z",
  blank: "M3 6h14M3 14h5M10 11.5h7v5h-7z",
  tool: "M12.5 3.5a4 4 0 0 0-4.6 5.2L3.5 13l3.5 3.5 4.4-4.4a4 4 0 0 0 5-4.8l-2.3 2.2-2.6-.6-.6-2.6z",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  chevron: "M7 5l5 5-5 5",
  key: "M8.5 11.5a3.5 3.5 0 1 1 0-.1zM8.5 11h8.500M14 11v3",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface ButtonProps {
  name: IconName;
  label: string;
  onClick: (event: MouseEvent) => void;
  disabled?: boolean;
  class?: string;
  pressed?: boolean;
}

export function IconButton({ name, label, onClick, disabled = false, class: style = "", pressed }: ButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${style}`}
      aria-label={label}
      aria-pressed={pressed}
      title={label}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={name} />
    </button>
  );
}
