import { needsKey } from "../api/http";
import { canUseTools, workbench } from "../api/models";
import { isSettingsOpen } from "../state/look";
import { changeSettings, current } from "../state/store";
import type { Sampling } from "../state/types";
import { IconButton } from "./icons";

type NumberName = Exclude<keyof Sampling, "stop">;

interface Range {
  name: NumberName;
  label: string;
  help: string;
  min: number;
  max: number;
  step: number;
  /** Where the slider stands until it is moved; the server's own default is used. */
  rest: number;
}

const RANGES: Range[] = [
  { name: "temperature", label: "Temperature", help: "0 always takes the likeliest word; higher is livelier.", min: 0, max: 2, step: 0.05, rest: 1 },
  { name: "top_p", label: "Top-p", help: "Chooses among the likeliest words that together have this probability.", min: 0.05, max: 1, step: 0.05, rest: 1 },
  { name: "top_k", label: "Top-k", help: "Chooses among this many of the likeliest words; 0 is all.", min: 0, max: 200, step: 1, rest: 0 },
  { name: "min_p", label: "Min-p", help: "Leaves out words this much less likely than the likeliest.", min: 0, max: 1, step: 0.01, rest: 0 },
  { name: "repetition_penalty", label: "Repetition penalty", help: "Above 1, words of the text so far come less often.", min: 0.8, max: 2, step: 0.05, rest: 1 },
  { name: "presence_penalty", label: "Presence penalty", help: "Above 0, words of the answer come less often.", min: -2, max: 2, step: 0.1, rest: 0 },
  { name: "frequency_penalty", label: "Frequency penalty", help: "The same, for each time they came.", min: -2, max: 2, step: 0.1, rest: 0 },
];

export function Settings() {
  if (!isSettingsOpen.value) return null;
  const { id, system, sampling } = current.value;
  const set = (changes: Sampling): void => changeSettings(id, { sampling: { ...sampling, ...changes } });
  const reset = (name: keyof Sampling): void => {
    const { [name]: _, ...rest } = sampling;
    changeSettings(id, { sampling: rest });
  };
  return (
    <>
      <div class="veil over" onClick={() => (isSettingsOpen.value = false)} />
      <aside class="settings" aria-label="Settings">
        <div class="settings-head">
          <h2>Settings</h2>
          <IconButton name="close" label="Close settings" onClick={() => (isSettingsOpen.value = false)} />
        </div>
        <p class="hint">For this conversation, and those begun after it.</p>
        <label class="field">
          <span>System prompt</span>
          <textarea
            rows={4}
            value={system}
            placeholder="How the model should answer"
            onInput={(event) => changeSettings(id, { system: event.currentTarget.value })}
          />
        </label>
        <ToolSwitch />
        {RANGES.map((range) => (
          <Slider key={range.name} range={range} value={sampling[range.name]} set={set} reset={reset} />
        ))}
        <div class="field-row">
          <Count label="Longest answer" name="max_tokens" min={1} value={sampling.max_tokens} set={set} reset={reset} />
          <Count label="Seed" name="seed" min={0} value={sampling.seed} set={set} reset={reset} />
        </div>
        <label class="field">
          <span>Stop at</span>
          <input
            value={sampling.stop?.join(" | ") ?? ""}
            placeholder="words, separated by |"
            onChange={(event) => {
              const stop = event.currentTarget.value.split("|").map((one) => one.trim()).filter(Boolean);
              if (stop.length) set({ stop: stop.slice(0, 4) });
              else reset("stop");
            }}
          />
        </label>
        <div class="settings-foot">
          <button type="button" class="quiet" onClick={() => changeSettings(id, { sampling: {} })}>
            Reset sampling
          </button>
          <button type="button" class="quiet" onClick={() => (needsKey.value = true)}>
            API key
          </button>
        </div>
      </aside>
    </>
  );
}

function ToolSwitch() {
  const { id, usesTools } = current.value;
  if (!canUseTools.value) return null;
  return (
    <label class="tick">
      <input type="checkbox" checked={usesTools} onChange={() => changeSettings(id, { usesTools: !usesTools })} />
      <span>
        Tools
        <small>The model may use what this server offers: {workbench.value.tools.join(", ")}.</small>
      </span>
    </label>
  );
}

interface ControlProps {
  set: (changes: Sampling) => void;
  reset: (name: keyof Sampling) => void;
}

function Slider({ range, value, set, reset }: ControlProps & { range: Range; value: number | undefined }) {
  const { name, label, help, min, max, step, rest } = range;
  const help_id = `help-${name}`;
  return (
    <div class={`slider ${value === undefined ? "at-rest" : ""}`}>
      <label for={`slider-${name}`}>{label}</label>
      <output>{value ?? "default"}</output>
      {value !== undefined && <IconButton name="close" label={`${label}: default`} onClick={() => reset(name)} />}
      <input
        id={`slider-${name}`}
        type="range"
        min={min}
        max={max}
        step={step}
        value={value ?? rest}
        aria-describedby={help_id}
        aria-valuetext={value === undefined ? "default" : String(value)}
        onInput={(event) => set({ [name]: Number(event.currentTarget.value) })}
      />
      <small id={help_id}>{help}</small>
    </div>
  );
}

type CountProps = ControlProps & { label: string; name: NumberName; min: number; value: number | undefined };

function Count({ label, name, min, value, set, reset }: CountProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="number"
        min={min}
        step={1}
        value={value ?? ""}
        placeholder="default"
        onChange={(event) => {
          const given = event.currentTarget.valueAsNumber;
          if (Number.isInteger(given) && given >= min) set({ [name]: given });
          else reset(name);
        }}
      />
    </label>
  );
}
