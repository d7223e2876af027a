// A bare connection of a device: deliveries are kept as they came, for stories that open them by hand.

import { readEnvelope } from '../../../examples/chat/lib/envelope.mjs';
import { Watched } from './wait.mjs';

export class Inbox extends Watched {
  envelopes = [];
  interruptions = [];
  #acks = [];
  #connection;

  static async open(node, device, { stories = false } = {}) {
    const inbox = new Inbox();
    inbox.device = device;
    inbox.#connection = await node.server
      .openNet()
      .connectAuthenticatedChat(`${device.aci}.${device.deviceId}`, device.password, stories, {
        onIncomingMessage: (bytes, _timestamp, ack) => {
          inbox.envelopes.push(readEnvelope(bytes));
          inbox.#acks.push(ack);
          inbox.changed();
        },
        onQueueEmpty() {},
        onConnectionInterrupted: (cause) => {
          inbox.interruptions.push(cause);
          inbox.changed();
        },
      });
    return inbox;
  }

  /** Waits until so many envelopes came in all, and returns the last of these. */
  async take(count) {
    await this.until(() => this.envelopes.length >= count, `envelope ${count} for ${this.device.address}`);
    return this.envelopes[count - 1];
  }

  /** Acknowledges what came, and closes. */
  async close() {
    if (this.interruptions.length > 0) return;
    for (const ack of this.#acks.splice(0)) ack.send(200);
    await this.#connection.disconnect();
    await this.until(() => this.interruptions.length > 0, `the connection of ${this.device.address} to end`);
  }
}
