// Keeps a client connected: reconnects with back-off, and retries what was being sent.

import { ErrorCode, LibSignalErrorBase } from './signal.mjs';
import { isConnectionLoss } from './client.mjs';
import { Mutex } from './mutex.mjs';

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 30_000;

/** Causes after which connecting again is pointless or would throw another window of the same account out. */
const FINAL = [ErrorCode.ConnectedElsewhere, ErrorCode.ConnectionInvalidated, ErrorCode.DeviceDelinked, ErrorCode.AppExpired];

export class Link {
  #client;
  #net;
  #status;
  #stopped = false;
  #end = null;
  #waiting = [];
  #sending = new Mutex();
  #wake = () => {};

  /**
   * @param net from `server.openNet()`
   * @param {(event: { kind: 'up' | 'down' | 'ended', cause?: Error, pauseMs?: number }) => void} [onStatus]
   */
  constructor(net, onStatus = () => {}) {
    this.#net = net;
    this.#status = onStatus;
  }

  /** Connects for the first time; a failure is thrown. Give {@link interrupted} to the client as `onInterrupted`. */
  async start(client) {
    this.#client = client;
    await client.connect(this.#net);
    this.#up();
  }

  interrupted = (cause) => {
    if (this.#stopped || this.#end) return;
    if (isFinal(cause)) return this.#finish(cause);
    this.#reconnect(cause);
  };

  /** Sends a message; survives lost connections. Returns when the server has accepted it. */
  send(aci, text) {
    return this.#sending.run(async () => {
      const timestamp = Date.now();
      const outbound = await this.#retry(() => this.#client.prepare(aci, text, timestamp));
      await this.#retry(() => this.#client.deliver(outbound));
    });
  }

  async stop() {
    this.#stopped = true;
    this.#wake();
    this.#settle();
    await this.#client?.disconnect();
  }

  /** Runs `work` until the connection lasts long enough for it. */
  async #retry(work) {
    for (let failures = 0; ; ) {
      await this.#connected();
      try {
        return await work();
      } catch (error) {
        const wait = LibSignalErrorBase.is(error, ErrorCode.RateLimitedError) ? error.retryAfterSecs * 1000 : null;
        if (wait === null && !isConnectionLoss(error)) throw error;
        if (this.#client.connected) {
          // The connection is up and the request failed all the same: the server has a problem. Give it some time.
          failures += 1;
          if (failures > 5) throw error;
          await this.#pause(wait ?? pauseAfter(failures));
        }
      }
    }
  }

  async #reconnect(cause) {
    for (let failures = 1; !this.#stopped; failures += 1) {
      const pauseMs = pauseAfter(failures);
      this.#status({ kind: 'down', cause, pauseMs });
      await this.#pause(pauseMs);
      if (this.#stopped) return;
      try {
        // libsignal keeps away from a route that failed a moment ago; this makes it forget.
        this.#net.onNetworkChange();
        await this.#client.connect(this.#net);
      } catch (error) {
        if (isFinal(error)) return this.#finish(error);
        cause = error;
        continue;
      }
      if (this.#stopped) return this.#client.disconnect();
      return this.#up();
    }
  }

  #up() {
    this.#status({ kind: 'up' });
    this.#settle();
  }

  #finish(cause) {
    this.#end = cause;
    this.#status({ kind: 'ended', cause });
    this.#settle();
  }

  #settle() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  async #connected() {
    while (!this.#client.connected) {
      if (this.#end) throw this.#end;
      if (this.#stopped) throw new Error('the connection was closed before the message was sent');
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Whether connecting again is pointless. */
export function isFinal(error) {
  return FINAL.some((code) => LibSignalErrorBase.is(error, code));
}

/** Doubles with every failure, with some spread so that clients do not come back in step. */
function pauseAfter(failures) {
  return Math.min(FIRST_PAUSE_MS * 2 ** (failures - 1), LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
}
