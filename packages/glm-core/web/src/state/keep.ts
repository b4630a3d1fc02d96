/** What the browser keeps for the page. Where it keeps nothing, as some private windows do, the page
 * works until it is closed.
 */

class Keep {
  readonly #memory = new Map<string, string>();
  readonly #storage: Storage | undefined;

  constructor(open: () => Storage) {
    try {
      this.#storage = open();
    } catch {
      this.#storage = undefined; // forbidden in this browser
    }
  }

  get(name: string): string | null {
    return this.#storage ? this.#storage.getItem(name) : (this.#memory.get(name) ?? null);
  }

  /** Returns whether there was room. */
  set(name: string, value: string): boolean {
    try {
      this.#storage?.setItem(name, value);
    } catch {
      return false;
    }
    if (!this.#storage) this.#memory.set(name, value);
    return true;
  }

  remove(name: string): void {
    this.#storage?.removeItem(name);
    this.#memory.delete(name);
  }

  names(): string[] {
    return this.#storage ? Object.keys(this.#storage) : [...this.#memory.keys()];
  }
}

/** Until it is deleted. */
export const kept = new Keep(() => localStorage);
/** Until the tab is closed. */
export const keptInTab = new Keep(() => sessionStorage);
