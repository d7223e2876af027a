/** Runs one asynchronous function at a time, in the order of the calls. */
export class Mutex {
  #last = Promise.resolve();

  run(work) {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }
}
