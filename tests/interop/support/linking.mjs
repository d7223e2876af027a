// One more device for an account: the library's provisioning connection, and the calls that it leaves to the app.

import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';

import { PrivateKey } from '../../../examples/chat/lib/signal.mjs';
import { Device, base64 } from '../../../examples/chat/lib/device.mjs';
import { makeKyberPreKey, makeSignedPreKey, toJson } from '../../../examples/chat/lib/keys.mjs';
import { makeSignedKeys } from '../../../examples/chat/lib/register.mjs';
import { askJson, basic } from './https.mjs';
import { Person } from './person.mjs';
import { openProvision, sealProvision } from './provisioning-cipher.mjs';
import { Watched, within } from './wait.mjs';

/** What a linked device says that it can do. */
export const CAPABILITIES = {
  spqr: true,
  deleteSync: true,
  versionedExpirationTimer: true,
  ssre2: true,
  usernameChangeSyncMessage: true,
};

/** A device that waits for a primary, and shows its address and public key as a QR code would. */
export class Candidate extends Watched {
  #key = PrivateKey.generate();
  #envelope = null;
  address = null;
  /** How its connection ended: undefined as long as it is open. */
  end;

  static async open(node, { httpVersion } = {}) {
    const candidate = new Candidate();
    candidate.connection = await node.server.openNet({ httpVersion }).connectProvisioning({
      onReceivedAddress: (address, ack) => {
        ack.send(200);
        candidate.address = address;
        candidate.changed();
      },
      onReceivedEnvelope: (envelope, ack) => {
        ack.send(200);
        candidate.#envelope = envelope;
        candidate.changed();
      },
      onConnectionInterrupted: (cause) => {
        candidate.end = cause;
        candidate.changed();
      },
    });
    await candidate.until(() => candidate.address, 'the address of a device that waits to be linked');
    return candidate;
  }

  get publicKey() {
    return this.#key.getPublicKey();
  }

  /** What the primary sent. */
  async provision() {
    await this.until(() => this.#envelope, 'the message of the primary');
    return openProvision(this.#key, this.#envelope);
  }

  ended() {
    return this.until(() => this.end !== undefined, 'the provisioning connection to end');
  }

  async close() {
    await this.connection.disconnect();
    await this.ended();
  }
}

/** Asks for a code as the primary at this window. */
export async function linkCode(window) {
  const { status, json } = await window.client.request('GET', '/v1/devices/provisioning/code');
  assert.equal(status, 200, 'a primary is given a code');
  return json;
}

/** Hands what this window's device has to share to whoever waits at that address. Returns the status. */
export async function handOver(window, { address, publicKey }, code, profileKey = new Uint8Array(randomBytes(32))) {
  const body = base64(sealProvision(publicKey, { device: window.client.device, code, profileKey }));
  const { status } = await window.client.request('PUT', `/v1/provisioning/${address}`, { body });
  return status;
}

/** A device with keys of its own under the identity that it was given, and the body that links it. */
export async function makeLinkedDevice({ identity, pniIdentity, number, code, aci, pni }, { capabilities = CAPABILITIES } = {}) {
  const device = new Device({
    aci,
    pni,
    identity,
    pniIdentity,
    number,
    password: randomBytes(24).toString('base64url'),
    registrationId: randomInt(1, 256),
    pniRegistrationId: randomInt(1, 256),
    accessKey: new Uint8Array(),
    recoveryPassword: new Uint8Array(),
  });
  const { signed, lastResort } = await makeSignedKeys(device);
  const request = {
    verificationCode: code,
    accountAttributes: {
      fetchesMessages: true,
      registrationId: device.registrationId,
      pniRegistrationId: device.pniRegistrationId,
      name: base64(randomBytes(60)),
      capabilities,
    },
    aciSignedPreKey: toJson(signed),
    aciPqLastResortPreKey: toJson(lastResort),
    pniSignedPreKey: toJson(makeSignedPreKey(1, pniIdentity)),
    pniPqLastResortPreKey: toJson(makeKyberPreKey(2, pniIdentity)),
  };
  return { device, request };
}

/** `PUT /v1/devices/link` as clients do it: plain HTTPS, the number as user. */
export function putLink(node, device, request) {
  return askJson(node, 'PUT', '/v1/devices/link', { headers: basic(device.number, device.password), json: request });
}

/** All of it. The new device stays offline. */
export async function link(window, node, { preKeys = 0, trustRoot, name = `${window.name}'s other device` } = {}) {
  const candidate = await Candidate.open(node);
  const { verificationCode } = await linkCode(window);
  assert.equal(await handOver(window, candidate, verificationCode), 204);
  const { device, request } = await makeLinkedDevice(await candidate.provision());
  await within(candidate.close(), 'the provisioning connection to end');
  const { status, json } = await putLink(node, device, request);
  assert.equal(status, 200, `linking: ${JSON.stringify(json)}`);
  device.deviceId = json.deviceId;
  const person = new Person(name, device, { trustRoot });
  if (preKeys > 0) {
    const first = await person.open(node);
    await first.client.publishPreKeys(preKeys);
    await first.close();
  }
  return person;
}

/** Sends to the other devices of this window's own account, as the server names them. */
export async function sync(window, text) {
  const { client } = window;
  const { device } = client;
  const known = device.knownDevices(device.aci);
  assert.ok(known.length > 0 && !known.includes(device.deviceId), 'there are sessions with the other devices, only');
  const { contents, timestamp } = await client.prepare(device.aci, text);
  await client.connection.sendSyncMessage({ timestamp, contents, urgent: true });
}
