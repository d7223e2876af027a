// What libsignal leaves behind, and how to be rid of it before the process ends.
//
// A `RegistrationService` sends to node's event loop when its native half is freed. Node frees what is left at the very
// end, when there is no loop any more, and libsignal answers that with a panic: the process aborts although every test
// has passed. So the services are made garbage, and collected, while the loop still runs.

import { setTimeout as pause } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { within } from './wait.mjs';

const ROUNDS = 100;
const PAUSE_MS = 20;

const services = new Set();

/** The part of `net` that registration needs; remembers, weakly, what it gives out. */
export function remembering(net) {
  const remembered = async (opening) => {
    const service = await opening;
    services.add(new WeakRef(service));
    return service;
  };
  return {
    createRegistrationSession: (options) => remembered(net.createRegistrationSession(options)),
    resumeRegistrationSession: (options) => remembered(net.resumeRegistrationSession(options)),
  };
}

/** Returns when every registration service is freed. */
export async function allFreed() {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc');
  for (let round = 0; round < ROUNDS; round += 1) {
    collectGarbage();
    // Finalizers run in a later turn of the loop, and what they send to it later still.
    await pause(PAUSE_MS);
    for (const service of services) {
      if (!service.deref()) services.delete(service);
    }
    if (services.size === 0) return;
  }
  throw new Error(`${services.size} registration services are still in use after ${ROUNDS * PAUSE_MS} ms`);
}

/**
 * An unauthenticated connection. Like that of a window, its end is waited for: the library tells its listener from a
 * thread of its own, and that must not happen after the end of the loop either.
 */
export async function connectAnonymously(node) {
  let interrupted;
  const end = new Promise((resolve) => (interrupted = resolve));
  const listener = { onConnectionInterrupted: interrupted };
  const connection = await node.server.openNet().connectUnauthenticatedChat(listener);
  const close = async () => {
    await connection.disconnect();
    await within(end, 'the unauthenticated connection to end');
  };
  return { connection, close };
}
