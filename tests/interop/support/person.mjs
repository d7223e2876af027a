// A registered account with a client, and a record of all that happened to it.

import { randomInt } from 'node:crypto';
import assert from 'node:assert/strict';

import { ErrorCode, LibSignalErrorBase } from '../../../examples/chat/lib/signal.mjs';
import { RelayClient } from '../../../examples/chat/lib/client.mjs';
import { Link } from '../../../examples/chat/lib/link.mjs';
import { register } from '../../../examples/chat/lib/register.mjs';
import { remembering } from './afterwards.mjs';
import { Watched } from './wait.mjs';

export const CODE = process.env.BLIND_RELAY_TEST_CODE ?? '000000';

/** Enough for most tests; making a hundred of each takes time. */
const FEW_PREKEYS = 10;

/** One window of one account: everything it saw, in order. */
export class Window extends Watched {
  messages = [];
  /** Each delivery, before decryption: also those that the ratchet drops as repeated. */
  envelopes = [];
  /** 'message' and 'queue empty', in the order of arrival. */
  events = [];
  interruptions = [];
  problems = [];

  constructor(name, device, { trustRoot, link } = {}) {
    super();
    this.name = name;
    this.client = new RelayClient(device, {
      trustRoot,
      onEnvelope: (envelope) => {
        this.envelopes.push(envelope);
        this.changed();
      },
      onMessage: (message) => {
        this.messages.push(message);
        this.events.push('message');
        this.changed();
      },
      onQueueEmpty: () => {
        this.events.push('queue empty');
        this.changed();
      },
      onInterrupted: (cause) => {
        this.interruptions.push(cause);
        this.changed();
        link?.interrupted(cause);
      },
      onProblem: (problem, envelope) => {
        this.problems.push(problem);
        this.broke(new Error(`${name} cannot read a message of type ${envelope?.type}: ${problem.stack}`));
      },
    });
  }

  get texts() {
    return this.messages.map(({ text }) => text);
  }

  /** Waits until so many messages were read in all, and returns the texts. */
  async read(count, options = {}) {
    await this.until(() => this.messages.length >= count, `${this.name} to read message ${count}`, {
      state: () => `there were ${this.messages.length}, the last one ${JSON.stringify(this.texts.at(-1))}`,
      ...options,
    });
    return this.texts;
  }

  /** Waits for the so-many-th end of the queue. */
  queueEmpty(count = 1) {
    return this.until(
      () => this.events.filter((event) => event === 'queue empty').length >= count,
      `${this.name} to hear that the queue is empty (${count})`,
      { state: () => `the events were ${summary(this.events)}`, ms: 120_000 },
    );
  }

  /** A round trip: the server has read all that was sent before, acknowledgements too. */
  async roundTrip() {
    const { status } = await this.client.request('GET', '/v1/keepalive');
    assert.equal(status, 200, 'keepalive is answered');
  }

  /** Closes the connection, and returns when its end was reported. */
  async close() {
    if (!this.client.connected) return;
    const ends = this.interruptions.length;
    await (this.link ? this.link.stop() : this.client.disconnect());
    await this.until(() => this.interruptions.length > ends, `the connection of ${this.name} to end`);
  }
}

export class Person {
  #windows = [];

  constructor(name, device, options) {
    this.name = name;
    this.device = device;
    this.options = options;
  }

  /**
   * Registers, publishes prekeys and stays offline.
   * @param options `number` to register, account `attributes` that differ from the usual ones
   */
  static async register(node, name, { preKeys = FEW_PREKEYS, trustRoot, number = someNumber(), attributes } = {}) {
    const net = node.server.openNet();
    const device = await register(remembering(net), { number, code: CODE, attributes });
    const person = new Person(name, device, { trustRoot });
    if (preKeys > 0) {
      const window = await person.open(node);
      await window.queueEmpty();
      await window.client.publishPreKeys(preKeys);
      await window.close();
    }
    return person;
  }

  get aci() {
    return this.device.aci;
  }

  /** Connects once. */
  async open(node, { httpVersion } = {}) {
    const window = new Window(this.name, this.device, this.options);
    this.#windows.push(window);
    await window.client.connect(node.server.openNet({ httpVersion }));
    return window;
  }

  /** Connects and keeps connecting, as the chat does. */
  async openForGood(node) {
    const link = new Link(node.server.openNet());
    const window = new Window(this.name, this.device, { ...this.options, link });
    window.link = link;
    this.#windows.push(window);
    await link.start(window.client);
    return window;
  }

  /** Closes whatever is open, at the end of a test. */
  async close() {
    for (const window of this.#windows) {
      await window.close().catch(() => {});
      await window.link?.stop().catch(() => {});
    }
  }
}

/** Expects libsignal's error of this kind, and returns it. */
export async function refusal(promise, code) {
  try {
    await promise;
  } catch (error) {
    if (LibSignalErrorBase.is(error, code)) return error;
    throw new Error(`expected ${ErrorCode[code]}, got ${ErrorCode[error?.code] ?? error?.name}: ${error?.message}`, {
      cause: error,
    });
  }
  throw new Error(`expected ${ErrorCode[code]}, and it succeeded`);
}

/** No delivery came twice. */
export function assertNoRepeats(window) {
  const guids = window.envelopes.map(({ guid }) => guid);
  assert.ok(
    guids.every((guid) => guid),
    'every envelope has a guid',
  );
  assert.equal(new Set(guids).size, guids.length, `${window.name} was given a message twice`);
}

/** Compares long lists of texts and names the first difference only. */
export function assertSameTexts(actual, expected, who) {
  const at = expected.findIndex((text, i) => actual[i] !== text);
  if (at >= 0) {
    assert.fail(`${who}: message ${at} should be ${JSON.stringify(expected[at])}, it is ${JSON.stringify(actual[at])}`);
  }
  assert.equal(actual.length, expected.length, `${who}: ${actual.length} messages instead of ${expected.length}`);
}

export function numbered(word, count) {
  return Array.from({ length: count }, (_, i) => `${word} ${i}`);
}

export function someNumber() {
  return `+1555${String(randomInt(10_000_000)).padStart(7, '0')}`;
}

function summary(events) {
  const counts = {};
  for (const event of events) counts[event] = (counts[event] ?? 0) + 1;
  return JSON.stringify(counts);
}
