/** What the server offers. */

import { computed, signal } from "@preact/signals";
import { isReachable, request } from "./http";
import { kept } from "../state/keep";

export interface Abilities {
  tools: boolean;
  images: boolean;
  fill: boolean;
}

export interface Model {
  id: string;
  /** Tokens; 0 where the server does not tell. */
  context: number;
  abilities: Abilities;
}

export interface Workbench {
  /** What a model may use there; the code interpreter is called Python here. */
  tools: string[];
  /** Kinds of document it reads, as file name endings. */
  documents: string[];
}

const MODEL = "glm.model";
const NOTHING: Workbench = { tools: [], documents: [] };

export const models = signal<Model[]>([]);
export const workbench = signal<Workbench>(NOTHING);
export const chosenId = signal(kept.get(MODEL) ?? "");
export const model = computed<Model | undefined>(
  () => models.value.find((one) => one.id === chosenId.value) ?? models.value[0],
);

/** Whether the model can use what the server offers. */
export const canUseTools = computed(() => workbench.value.tools.length > 0 && model.value?.abilities.tools === true);

export function chooseModel(id: string): void {
  chosenId.value = id;
  kept.set(MODEL, id);
}

interface Told {
  id: string;
  context_length?: number;
  abilities?: Partial<Abilities>;
}

/** Asks what there is; throws ServerTrouble. */
export async function loadModels(): Promise<void> {
  const [known, bench] = await Promise.all([request("v1/models"), request("workbench")]);
  const { data } = (await known.json()) as { data: Told[] };
  models.value = data.map(readModel);
  const told = (await bench.json()) as { code_interpreter?: boolean; tools?: string[]; documents?: string[] };
  const tools = [...(told.code_interpreter ? ["Python"] : []), ...(told.tools ?? [])];
  workbench.value = { tools, documents: told.documents ?? [] };
}

function readModel(told: Told): Model {
  const { tools = false, images = false, fill = false } = told.abilities ?? {};
  return { id: told.id, context: told.context_length ?? 0, abilities: { tools, images, fill } };
}

let isWaiting = false;

/** Looks for a server that is gone until it is back. */
export function waitForServer(): void {
  if (isWaiting) return;
  isWaiting = true;
  const timer = setInterval(async () => {
    try {
      await fetch("health", { credentials: "omit" });
      isReachable.value = true;
      clearInterval(timer);
      isWaiting = false;
      await loadModels().catch(() => undefined);
    } catch {
      isReachable.value = false;
    }
  }, 3000);
}
