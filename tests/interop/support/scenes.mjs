// How many stories begin, and what they look at.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';

import { Aci, CiphertextMessageType, SenderCertificate } from '../../../examples/chat/lib/signal.mjs';
import { base64, bytesFrom } from '../../../examples/chat/lib/device.mjs';
import { EnvelopeType } from '../../../examples/chat/lib/envelope.mjs';
import { SHORT_MS } from './wait.mjs';

/** For stories in which one person says more than people do. */
export const UNLIMITED = { RATE_LIMITS: 'off' };

/** Two people online, strangers yet. */
export async function pair(sender, receiver, register) {
  const windows = [];
  for (const [name, node] of [
    ['Alice', sender],
    ['Bob', receiver],
  ]) {
    const person = await register(node, name);
    const window = await person.open(node);
    window.person = person;
    await window.queueEmpty();
    windows.push(window);
  }
  return windows;
}

/** Two people online who have exchanged a message each way. */
export async function acquainted(sender, receiver, register) {
  const [alice, bob] = await pair(sender, receiver, register);
  await alice.client.send(bob.client.device.aci, 'hello');
  await bob.read(1);
  await bob.client.send(alice.client.device.aci, 'hello');
  await alice.read(1);
  return [alice, bob];
}

/** A server may tell a sender that a message was delivered; no test depends on when it does. */
export function withoutReceipts(window) {
  return window.envelopes.filter(({ type }) => type !== EnvelopeType.RECEIPT);
}

export async function sendAll(window, aci, texts) {
  for (const text of texts) await window.client.send(aci, text);
}

/** Contents of a message that is never sent, for requests that are refused. */
export async function borrowedContents(window) {
  const [address] = window.client.device.sessions.keys();
  const { contents } = await window.client.prepare(address.split('.')[0], 'never sent');
  return contents;
}

/** Bytes with the form of a sealed message, and nothing sealed in them. */
export function looksSealed(length) {
  const bytes = new Uint8Array(length).fill(0xee);
  bytes[0] = 0x22;
  return bytes;
}

export function sendTo(window, aci, contents, { onlineOnly = false } = {}) {
  return window.client.connection.sendMessage({
    destination: Aci.parseFromServiceIdString(aci),
    timestamp: Date.now(),
    contents,
    onlineOnly,
    urgent: true,
  });
}

export function lists({ account, missingDevices, extraDevices, staleDevices }) {
  return {
    account: account.getServiceIdString(),
    missing: [...missingDevices],
    extra: [...extraDevices],
    stale: [...staleDevices],
  };
}

export function pick({ count, pqCount }) {
  return { count, pqCount };
}

export function someAccessKey() {
  return new Uint8Array(randomBytes(16));
}

/** The server's word for who this window's device is, to be sealed into messages. */
export async function certificateOf(window, { number = false } = {}) {
  const path = `/v1/certificate/delivery?includeE164=${number}`;
  const { status, json } = await window.client.request('GET', path);
  assert.equal(status, 200);
  return SenderCertificate.deserialize(bytesFrom(json.certificate));
}

/** Builds sessions with all devices of this account, as an app does before it writes for the first time. */
export async function meet(window, aci) {
  for (const bundle of await window.client.takeBundles(aci)) await window.client.startSession(aci, bundle);
}

/** Sets access to this window's account as an app does: with all of its attributes. */
export async function setAccess(window, { accessKey = window.client.device.accessKey, unrestricted = false }) {
  const { device } = window.client;
  const { status } = await window.client.request('PUT', '/v1/accounts/attributes', {
    fetchesMessages: true,
    registrationId: device.registrationId,
    pniRegistrationId: device.pniRegistrationId,
    capabilities: { spqr: true },
    unidentifiedAccessKey: base64(accessKey),
    unrestrictedUnidentifiedAccess: unrestricted,
  });
  assert.equal(status, 204);
  device.accessKey = accessKey;
}

/** Tries until it succeeds: for what another node learns a moment later. */
export async function eventually(attempt) {
  const deadline = Date.now() + SHORT_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await pause(20);
    }
  }
}

/** Sends as the library would, by a plain request: for connections on which its own call is gRPC. */
export async function sendByRequest(window, aci, text) {
  const { contents, timestamp } = await window.client.prepare(aci, text);
  const { status } = await window.client.request('PUT', `/v1/messages/${aci}`, {
    messages: contents.map(({ deviceId, registrationId, contents: message }) => ({
      type: message.type() === CiphertextMessageType.PreKey ? EnvelopeType.PREKEY : EnvelopeType.CIPHERTEXT,
      destinationDeviceId: deviceId,
      destinationRegistrationId: registrationId,
      content: base64(message.serialize()),
    })),
    online: false,
    urgent: true,
    timestamp,
  });
  assert.equal(status, 200);
}
