// Waiting for events. Every wait has a limit and says what it waited for.

export const SHORT_MS = 20_000;

/** Something whose changes can be waited for. */
export class Watched {
  #waiting = new Set();
  #broken = null;

  /** To be called after each change. */
  changed() {
    for (const check of this.#waiting) check();
  }

  /** Fails all waits, now and later. */
  broke(error) {
    this.#broken = error;
    this.changed();
  }

  /**
   * Returns the first truthy value of `look`.
   * @param {string} what finishes the sentence "timed out waiting for …"
   * @param {() => string} state what there was instead
   */
  until(look, what, { ms = SHORT_MS, state = () => '' } = {}) {
    return new Promise((resolve, reject) => {
      const done = (settle, value) => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        settle(value);
      };
      const check = () => {
        const found = look();
        if (found) done(resolve, found);
        else if (this.#broken) done(reject, new Error(`while waiting for ${what}: ${this.#broken.message}`));
      };
      const timer = setTimeout(() => {
        const instead = state();
        done(reject, new Error(`timed out after ${ms} ms waiting for ${what}${instead && `; ${instead}`}`));
      }, ms);
      this.#waiting.add(check);
      check();
    });
  }
}

/** A promise with a limit. */
export async function within(promise, what, ms = SHORT_MS) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${ms} ms waiting for ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}
