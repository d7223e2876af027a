// Two devices, no server: what one encrypts the other reads, through bundles in the server's JSON form.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import {
  Aci,
  CiphertextMessageType,
  ErrorCode,
  IdentityKeyPair,
  LibSignalErrorBase,
} from '../lib/signal.mjs';
import { RelayClient, bundlesFromJson } from '../lib/client.mjs';
import { Device, base64 } from '../lib/device.mjs';
import { makeKyberPreKey, makeOneTimePreKeys, makeSignedPreKey, toJson } from '../lib/keys.mjs';
import { pad, unpad } from '../lib/padding.mjs';
import { loadState, saveState } from '../lib/state-file.mjs';
import { writeEnvelope } from '../lib/envelope.mjs';

test('first message, reply and a hundred more arrive in order', async () => {
  const wire = new Wire();
  const alice = await wire.join();
  const bob = await wire.join();

  await alice.client.send(bob.device.aci, 'hello');
  assert.equal(wire.lastType, CiphertextMessageType.PreKey);
  assert.deepEqual(await bob.read(1), ['hello']);
  await bob.client.send(alice.device.aci, 'hi');
  assert.deepEqual(await alice.read(1), ['hi']);
  const texts = Array.from({ length: 100 }, (_, i) => `number ${i}`);
  for (const text of texts) await alice.client.send(bob.device.aci, text);
  assert.equal(wire.lastType, CiphertextMessageType.Whisper);
  assert.deepEqual((await bob.read(101)).slice(1), texts);
});

test('a ciphertext that is delivered twice is read once and acknowledged twice', async () => {
  const wire = new Wire();
  const alice = await wire.join();
  const bob = await wire.join();
  const outbound = await alice.client.prepare(bob.device.aci, 'once');
  await alice.client.deliver(outbound);
  await alice.client.deliver(outbound);
  await alice.client.send(bob.device.aci, 'after');
  assert.deepEqual(await bob.read(2), ['once', 'after']);
  await bob.client.disconnect();
  assert.deepEqual(bob.problems, []);
  assert.equal(wire.acknowledged, 3);
});

test('a session works with the last-resort Kyber key alone', async () => {
  const wire = new Wire();
  const alice = await wire.join();
  const bob = await wire.join({ oneTime: 0 });
  await alice.client.send(bob.device.aci, 'still works');
  assert.deepEqual(await bob.read(1), ['still works']);
});

test('a changed identity key stops sending until it is accepted', async () => {
  const wire = new Wire();
  const alice = await wire.join();
  const bob = await wire.join();
  await alice.client.send(bob.device.aci, 'first');
  const again = await wire.join({ aci: bob.device.aci });
  alice.device.sessions.clear();
  await assert.rejects(alice.client.send(bob.device.aci, 'to whom?'), (error) =>
    LibSignalErrorBase.is(error, ErrorCode.UntrustedIdentity),
  );
  alice.device.trustAgain(bob.device.aci);
  await alice.client.send(bob.device.aci, 'to you');
  assert.deepEqual(await again.read(1), ['to you']);
});

test('a device that was written to a file goes on where it was', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'blind-relay-chat-'));
  try {
    const wire = new Wire();
    const alice = await wire.join();
    const bob = await wire.join();
    await alice.client.send(bob.device.aci, 'before');
    await bob.read(1);
    await bob.client.send(alice.device.aci, 'reply');
    await alice.read(1);

    const path = join(folder, 'bob.json');
    assert.equal(await loadState(path), null);
    await saveState(path, bob.device);
    assert.equal((await stat(path)).mode & 0o077, 0, 'private keys are for the owner only');
    const loaded = await loadState(path);
    assert.deepEqual(loaded.toJSON(), bob.device.toJSON());

    const revived = await wire.attach(loaded);
    await alice.client.send(bob.device.aci, 'after');
    assert.deepEqual(await revived.read(1), ['after']);
    await revived.client.send(alice.device.aci, 'thanks');
    assert.deepEqual((await alice.read(2)).slice(1), ['thanks']);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('padding hides the length and comes off again', () => {
  for (const text of ['', 'x', 'ä'.repeat(79), 'y'.repeat(159), 'z'.repeat(160), '\u0080']) {
    assert.equal(pad(text).length % 160, 0);
    assert.equal(unpad(pad(text)), text);
  }
  assert.equal(pad('yes').length, pad('a longer answer').length);
  assert.throws(() => unpad(new Uint8Array(160)), /padding/);
});

test('bundles without a one-time key are understood', async () => {
  const wire = new Wire();
  const { device } = await wire.join();
  const kyber = makeKyberPreKey(9, device.identity);
  const [bundle] = bundlesFromJson({
    identityKey: base64(device.identity.publicKey.serialize()),
    devices: [
      {
        deviceId: 1,
        registrationId: 5,
        signedPreKey: toJson(makeSignedPreKey(1, device.identity)),
        preKey: null,
        pqPreKey: toJson(kyber),
      },
    ],
  });
  assert.equal(bundle.preKeyId(), null);
  assert.equal(bundle.kyberPreKeyId(), 9);
});

/** A server made of a map: it stands in for libsignal's connection. */
class Wire {
  lastType = 0;
  acknowledged = 0;
  #bundles = new Map();
  #listeners = new Map();

  async join({ aci = randomUUID(), oneTime = 3 } = {}) {
    const identity = IdentityKeyPair.generate();
    const device = new Device({
      aci,
      pni: null,
      deviceId: 1,
      number: '+15550000001',
      password: 'secret',
      registrationId: 1 + Math.floor(Math.random() * 16000),
      pniRegistrationId: 2,
      accessKey: new Uint8Array(16),
      recoveryPassword: new Uint8Array(32),
      identity,
      pniIdentity: IdentityKeyPair.generate(),
    });
    const signed = makeSignedPreKey(device.nextKeyId++, identity);
    await device.signedPreKeyStore.saveSignedPreKey(signed.id(), signed);
    const lastResort = makeKyberPreKey(device.nextKeyId++, identity);
    await device.kyberPreKeyStore.saveKyberPreKey(lastResort.id(), lastResort);
    device.lastResortId = lastResort.id();
    const { preKeys, pqPreKeys } = await makeOneTimePreKeys(device, oneTime);
    this.#bundles.set(aci, () => ({
      identityKey: base64(identity.publicKey.serialize()),
      devices: [
        {
          deviceId: 1,
          registrationId: device.registrationId,
          signedPreKey: toJson(signed),
          preKey: preKeys.shift(),
          pqPreKey: pqPreKeys.shift() ?? toJson(lastResort),
        },
      ],
    }));
    return this.attach(device);
  }

  async attach(device) {
    const texts = [];
    const problems = [];
    let wake = () => {};
    const client = new RelayClient(device, {
      onMessage: ({ text }) => {
        texts.push(text);
        wake();
      },
      onProblem: (error) => {
        problems.push(error);
        wake();
      },
    });
    await client.connect({
      connectAuthenticatedChat: async (_user, _password, _stories, listener) => {
        this.#listeners.set(device.aci, listener);
        return {
          disconnect: async () => {},
          fetch: async ({ path }) => ({
            status: 200,
            headers: [],
            body: Buffer.from(JSON.stringify(this.#bundles.get(path.split('/')[3])())),
          }),
          sendMessage: async (request) => this.#deliver(device, request),
        };
      },
    });
    const read = async (count) => {
      while (texts.length < count && problems.length === 0) await new Promise((resolve) => (wake = resolve));
      assert.deepEqual(problems, []);
      return texts;
    };
    return { device, client, read, problems };
  }

  #deliver(from, { destination, timestamp, contents }) {
    assert.ok(destination instanceof Aci);
    this.lastType = contents[0].contents.type();
    const envelope = writeEnvelope({
      type: this.lastType === CiphertextMessageType.PreKey ? 3 : 1,
      timestamp,
      source: from.aci,
      sourceDevice: from.deviceId,
      content: contents[0].contents.serialize(),
    });
    this.#listeners.get(destination.getServiceIdString()).onIncomingMessage(envelope, timestamp, {
      send: () => {
        this.acknowledged += 1;
      },
    });
  }
}
