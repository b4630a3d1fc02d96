import { model } from "../api/models";
import { draft } from "../state/draft";
import { mode } from "../state/look";
import { focusComposer } from "./typing";

const QUESTIONS = [
  "Explain what a prefix language model is.",
  "Write a Python function that merges two sorted lists.",
  "What should I look for in a code review?",
];

export function Welcome() {
  const known = model.value;
  return (
    <section class="welcome">
      <h1>What is on your mind?</h1>
      <p>{known ? `${known.id} runs on this server. What you write goes there and nowhere else.` : "Looking for the model..."}</p>
      <ul class="suggestions">
        {QUESTIONS.map((text) => (
          <li>
            <button type="button" onClick={() => suggest(text)}>
              {text}
            </button>
          </li>
        ))}
        {known?.abilities.fill && (
          <li>
            <button type="button" onClick={() => (mode.value = "fill")}>
              Fill the blanks in a text
            </button>
          </li>
        )}
      </ul>
    </section>
  );
}

function suggest(text: string): void {
  draft.value = text;
  focusComposer();
}
