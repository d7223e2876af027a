// What an unmodified libsignal client experiences, told once and run on each set-up.

import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
  Aci,
  ErrorCode,
  PrivateKey,
  SenderCertificate,
  ServerCertificate,
} from '../../examples/chat/lib/signal.mjs';
import { UnknownRecipient } from '../../examples/chat/lib/client.mjs';
import { EnvelopeType } from '../../examples/chat/lib/envelope.mjs';
import { allFreed, connectAnonymously } from './support/afterwards.mjs';
import { Chat } from './support/chat.mjs';
import { Person, assertNoRepeats, assertSameTexts, numbered, refusal } from './support/person.mjs';
import { within } from './support/wait.mjs';

const STORY_MS = 240_000;

/** A certificate authority that no server uses; its key was thrown away. */
const OTHER_CA = fileURLToPath(new URL('support/other-ca.pem', import.meta.url));

/** @param setup one of support/setups.mjs */
export function tell(setup) {
  if (setup.missing) {
    if (process.env.BLIND_RELAY_TEST_REQUIRE_ALL === '1') {
      test(setup.name, () => assert.fail(`${setup.missing}, and BLIND_RELAY_TEST_REQUIRE_ALL is 1`));
    } else {
      console.log(`skipped: ${setup.name} (${setup.missing})`);
    }
    return;
  }

  describe(setup.name, () => {
    /** A test with its own servers; their logs are printed when it fails. */
    const story = (name, tale) =>
      test(name, { timeout: STORY_MS }, async () => {
        const stage = await setup.open();
        const people = [];
        const register = async (node, who, options) => {
          const person = await Person.register(node, who, options);
          people.push(person);
          return person;
        };
        try {
          await tale({ ...stage, register });
        } catch (error) {
          for (const node of stage.nodes) console.error(`--- log of ${node.name} (${name})\n${node.log()}`);
          throw error;
        } finally {
          await Promise.all(people.map((person) => person.close()));
          await stage.close();
        }
      });

    keys(story);
    messages(story);
    connections(story);
    restarts(story);
    sealedSender(story);
    chat(story);

    after(allFreed);
  });
}

function keys(story) {
  story('a full set of prekeys is published and counted', async ({ sender, register }) => {
    const alice = await register(sender, 'Alice', { preKeys: 0 });
    const window = await alice.open(sender);
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 0, pqCount: 0 });
    await window.client.publishPreKeys(100);
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 100, pqCount: 100 });
    await window.client.publishPreKeys(30);
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 30, pqCount: 30 }, 'a new set replaces the old');
  });

  story('few prekeys are topped up to a hundred', async ({ sender, receiver, register }) => {
    const bob = await register(receiver, 'Bob', { preKeys: 10 });
    const alice = await (await register(sender, 'Alice')).open(sender);
    const window = await bob.open(receiver);
    await window.client.topUpPreKeys();
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 10, pqCount: 10 }, 'ten are enough');
    await alice.client.takeBundles(bob.aci);
    await window.client.topUpPreKeys();
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 100, pqCount: 100 });
  });

  story('each fetch hands out other one-time keys, then the last resort', async ({ sender, receiver, register }) => {
    const bob = await register(receiver, 'Bob', { preKeys: 2 });
    const alice = await (await register(sender, 'Alice')).open(sender);
    const [first] = await alice.client.takeBundles(bob.aci);
    const [second] = await alice.client.takeBundles(bob.aci, 1);
    const [third] = await alice.client.takeBundles(bob.aci);
    assert.equal(first.registrationId(), bob.device.registrationId);
    assert.ok(first.preKeyId() !== null && second.preKeyId() !== null, 'both one-time keys are handed out');
    assert.notEqual(first.preKeyId(), second.preKeyId());
    assert.notEqual(first.kyberPreKeyId(), second.kyberPreKeyId());
    assert.ok(![first, second].some((bundle) => bundle.kyberPreKeyId() === bob.device.lastResortId));
    assert.equal(third.preKeyId(), null, 'no elliptic-curve key is left');
    assert.equal(third.kyberPreKeyId(), bob.device.lastResortId);

    const window = await bob.open(receiver);
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 0, pqCount: 0 });
    await alice.client.send(bob.aci, 'by the last resort');
    assert.deepEqual(await window.read(1), ['by the last resort']);
    await window.client.send(alice.client.device.aci, 'and back');
    assert.deepEqual(await alice.read(1), ['and back']);
  });

  story('a stranger with the access key fetches prekeys, without it they are refused', async ({ sender, receiver, register }) => {
    const bob = await register(receiver, 'Bob');
    const anonymous = await connectAnonymously(sender);
    try {
      const target = Aci.parseFromServiceIdString(bob.aci);
      const fetch = (accessKey, device = 'all', who = target) =>
        anonymous.connection.getPreKeys({ target: who, device, auth: { accessKey } });
      const { identityKey, preKeyBundles } = await fetch(bob.device.accessKey);
      assert.ok(Buffer.from(identityKey.serialize()).equals(bob.device.identity.publicKey.serialize()));
      assert.equal(preKeyBundles.length, 1);
      assert.equal((await fetch(bob.device.accessKey, { deviceId: 1 })).preKeyBundles.length, 1);

      await refusal(fetch(someAccessKey()), ErrorCode.RequestUnauthorized);
      const nobody = Aci.parseFromServiceIdString(randomUUID());
      await refusal(fetch(bob.device.accessKey, 'all', nobody), ErrorCode.RequestUnauthorized);

      const alice = await (await register(sender, 'Alice')).open(sender);
      await alice.client.startSession(bob.aci, preKeyBundles[0]);
      await alice.client.send(bob.aci, 'from a bundle that was fetched in secret');
      const window = await bob.open(receiver);
      assert.deepEqual(await window.read(1), ['from a bundle that was fetched in secret']);
    } finally {
      await anonymous.close();
    }
  });
}

function messages(story) {
  story('a first message and its reply', async ({ sender, receiver, register }) => {
    const [alice, bob] = await pair(sender, receiver, register);
    const before = Date.now();
    await alice.client.send(bob.client.device.aci, 'hello Bob');
    assert.deepEqual(await bob.read(1), ['hello Bob']);
    const [envelope] = withoutReceipts(bob);
    assert.equal(envelope.type, EnvelopeType.PREKEY);
    assert.equal(envelope.source, alice.client.device.aci);
    assert.equal(envelope.sourceDevice, 1);
    assert.equal(envelope.destination, bob.client.device.aci);
    assert.ok(envelope.timestamp >= before && envelope.timestamp <= Date.now(), "the sender's time is passed on");
    assert.ok(envelope.serverTimestamp > 0);

    await bob.client.send(alice.client.device.aci, 'hello Alice');
    assert.deepEqual(await alice.read(1), ['hello Alice']);
    assert.equal(withoutReceipts(alice)[0].type, EnvelopeType.CIPHERTEXT);
    await alice.client.send(bob.client.device.aci, 'how are you');
    await bob.read(2);
    assert.equal(withoutReceipts(bob).at(-1).type, EnvelopeType.CIPHERTEXT);
  });

  story('two hundred messages each way, interleaved', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const there = numbered('there', 200);
    const back = numbered('back', 200);
    await Promise.all([
      sendAll(alice, bob.client.device.aci, there),
      sendAll(bob, alice.client.device.aci, back),
    ]);
    assertSameTexts((await bob.read(201)).slice(1), there, 'Bob');
    assertSameTexts((await alice.read(201)).slice(1), back, 'Alice');
    assertNoRepeats(alice);
    assertNoRepeats(bob);
  });

  story('a queue of a thousand is drained in order, then it is empty', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    await bob.roundTrip();
    await bob.close();

    const texts = numbered('offline', 1000);
    await sendAll(alice, aci, texts);

    const again = await bob.person.open(receiver);
    await again.queueEmpty();
    assertSameTexts(again.texts, texts, 'Bob');
    assertNoRepeats(again);
    await alice.client.send(aci, 'live');
    await again.read(1001);
    assert.equal(again.texts.at(-1), 'live');
    assert.deepEqual(
      again.events.flatMap((event, i) => (event === 'queue empty' ? [i] : [])),
      [1000],
      'the queue is empty once, after the last of it',
    );
  });

  story('an unknown recipient is ServiceIdNotFound', async ({ sender, register }) => {
    const [alice] = await acquainted(sender, sender, register);
    const nobody = randomUUID();
    await assert.rejects(alice.client.send(nobody, 'is anybody there'), UnknownRecipient);
    const contents = await borrowedContents(alice);
    await refusal(sendTo(alice, nobody, contents), ErrorCode.ServiceIdNotFound);
  });

  story('a wrong device list is answered with the right one', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    const [content] = await borrowedContents(alice);

    const other = await refusal(sendTo(alice, aci, [{ ...content, deviceId: 2 }]), ErrorCode.MismatchedDevices);
    assert.deepEqual(other.entries.map(lists), [{ account: aci, missing: [1], extra: [2], stale: [] }]);
    const more = await refusal(sendTo(alice, aci, [content, { ...content, deviceId: 3 }]), ErrorCode.MismatchedDevices);
    assert.deepEqual(more.entries.map(lists), [{ account: aci, missing: [], extra: [3], stale: [] }]);
    const registrationId = (content.registrationId % 16000) + 1;
    const old = await refusal(sendTo(alice, aci, [{ ...content, registrationId }]), ErrorCode.MismatchedDevices);
    assert.deepEqual(old.entries.map(lists), [{ account: aci, missing: [], extra: [], stale: [1] }]);

    await alice.client.send(aci, 'the refused ones were not delivered');
    assert.deepEqual((await bob.read(2)).slice(1), ['the refused ones were not delivered']);
    await bob.roundTrip();
    assert.equal(bob.problems.length, 0);
    assert.equal(bob.messages.length, 2);
  });
}

function connections(story) {
  story('a second connection displaces the first', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    // With two nodes the newer connection is on the other one.
    const newer = await bob.person.open(sender);
    const [cause] = await bob.until(
      () => bob.interruptions.length > 0 && bob.interruptions,
      'the first connection to be closed',
    );
    assert.equal(cause?.code, ErrorCode.ConnectedElsewhere, `the cause was ${cause}`);
    await newer.queueEmpty();
    await alice.client.send(aci, 'to the new window');
    assert.deepEqual(await newer.read(1), ['to the new window']);
    assert.equal(bob.messages.length, 1);

    const newest = await bob.person.open(receiver);
    await newer.until(() => newer.interruptions.length > 0, 'the second connection to be closed');
    assert.equal(newer.interruptions[0]?.code, ErrorCode.ConnectedElsewhere);
    await newest.queueEmpty();
    await alice.client.send(aci, 'to the newest window');
    await newest.until(() => newest.texts.includes('to the newest window'), 'the message to reach the newest window');
  });

  story('acknowledged messages never come again', async ({ nodes, sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    await sendAll(alice, aci, numbered('live', 50));
    await bob.read(51);
    await bob.roundTrip();
    await bob.close();
    for (const node of [...nodes, ...nodes]) {
      const again = await bob.person.open(node);
      await again.queueEmpty();
      assert.deepEqual(withoutReceipts(again), [], `${node.name} delivered what was acknowledged`);
      await again.close();
    }

    await sendAll(alice, aci, numbered('queued', 50));
    const drained = await bob.person.open(receiver);
    await drained.queueEmpty();
    assertSameTexts(drained.texts, numbered('queued', 50), 'Bob');
    await drained.roundTrip();
    await drained.close();
    for (const node of [...nodes, ...nodes]) {
      const again = await bob.person.open(node);
      await again.queueEmpty();
      assert.deepEqual(withoutReceipts(again), [], `${node.name} delivered what was acknowledged`);
      await again.close();
    }
  });

  story('bad credentials are DeviceDelinked', async ({ nodes, sender, register }) => {
    const alice = await register(sender, 'Alice', { preKeys: 0 });
    for (const node of nodes) {
      let interrupted;
      const end = new Promise((resolve) => (interrupted = resolve));
      const listener = { onConnectionInterrupted: interrupted, onIncomingMessage() {}, onQueueEmpty() {} };
      const login = (user, password) =>
        node.server.openNet().connectAuthenticatedChat(user, password, false, listener);
      await refusal(login(`${alice.aci}.1`, 'not the password'), ErrorCode.DeviceDelinked);
      await refusal(login(`${alice.aci}.2`, alice.device.password), ErrorCode.DeviceDelinked);
      await refusal(login(`${randomUUID()}.1`, alice.device.password), ErrorCode.DeviceDelinked);
      const plain = await login(alice.aci, alice.device.password);
      await plain.disconnect();
      await within(end, 'the connection to end');
    }
  });
}

function restarts(story) {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    story(`a restart by ${signal} in the middle of traffic loses nothing`, async ({ nodes, sender, receiver, register }) => {
      const alice = await (await register(sender, 'Alice')).openForGood(sender);
      const bob = await (await register(receiver, 'Bob')).openForGood(receiver);
      await alice.link.send(bob.client.device.aci, 'hello');
      await bob.read(1);
      await bob.link.send(alice.client.device.aci, 'hello');
      await alice.read(1);

      const there = numbered('there', 300);
      const back = numbered('back', 300);
      let restarted = null;
      const sendThrough = async (window, aci, texts) => {
        for (const [i, text] of texts.entries()) {
          await window.link.send(aci, text);
          if (i === 100) {
            restarted ??= (async () => {
              for (const node of nodes) await node.restart(signal);
            })();
            restarted.catch(() => {}); // reported below
          }
        }
      };
      await Promise.all([
        sendThrough(alice, bob.client.device.aci, there),
        sendThrough(bob, alice.client.device.aci, back),
      ]);
      await restarted;
      assert.ok(alice.interruptions.length > 0 && bob.interruptions.length > 0, 'both felt the restart');
      assertSameTexts((await bob.read(301, { ms: 60_000 })).slice(1), there, 'Bob');
      assertSameTexts((await alice.read(301, { ms: 60_000 })).slice(1), back, 'Alice');
    });

    story(`a drain that is cut by ${signal} goes on after it`, async ({ nodes, sender, receiver, register }) => {
      const [alice, bob] = await acquainted(sender, receiver, register);
      await bob.roundTrip();
      await bob.close();
      const texts = numbered('queued', 600);
      await sendAll(alice, bob.client.device.aci, texts);
      const again = await bob.person.openForGood(receiver);
      await again.read(100);
      for (const node of nodes) await node.restart(signal);
      await again.until(() => again.interruptions.length > 0, 'Bob to feel the restart');
      assertSameTexts(await again.read(600, { ms: 60_000 }), texts, 'Bob');
    });

    story(`a queue survives ${signal}`, async ({ nodes, sender, receiver, register }) => {
      const [alice, bob] = await acquainted(sender, receiver, register);
      const { aci } = bob.client.device;
      await bob.roundTrip();
      await bob.close();
      const texts = numbered('queued', 100);
      await sendAll(alice, aci, texts);
      // At once after the last success: nothing may still be on its way to the disk.
      await Promise.all(nodes.map((node) => node.stop(signal)));
      for (const node of nodes) await node.start();
      const again = await bob.person.open(receiver);
      await again.queueEmpty();
      assertSameTexts(again.texts, texts, 'Bob');
    });
  }
}

function sealedSender(story) {
  story('a sealed message arrives, and the server does not say from whom', async ({ sender, receiver, register }) => {
    const authority = new Authority();
    const alicePerson = await register(sender, 'Alice');
    const bobPerson = await register(receiver, 'Bob', { trustRoot: authority.trustRoot });
    const alice = await alicePerson.open(sender);
    const bob = await bobPerson.open(receiver);
    await bob.queueEmpty();
    for (const bundle of await alice.client.takeBundles(bobPerson.aci)) {
      await alice.client.startSession(bobPerson.aci, bundle);
    }
    const certificate = authority.certify(alicePerson.device);
    const anonymous = await connectAnonymously(sender);
    try {
      const seal = (text, accessKey) =>
        alice.client.sendSealed(anonymous.connection, bobPerson.aci, text, { accessKey, certificate });
      await seal('guess who', bobPerson.device.accessKey);
      assert.deepEqual(await bob.read(1), ['guess who']);
      const [envelope] = bob.envelopes;
      assert.equal(envelope.type, EnvelopeType.SEALED);
      assert.equal(envelope.source, undefined);
      assert.equal(envelope.sourceDevice, undefined);
      assert.equal(envelope.destination, bobPerson.aci);
      assert.equal(bob.messages[0].from, alicePerson.aci);
      assert.equal(bob.messages[0].sealed, true);

      await refusal(seal('with a wrong key', someAccessKey()), ErrorCode.RequestUnauthorized);

      await bob.roundTrip();
      await bob.close();
      await seal('while you were out', bobPerson.device.accessKey);
      const again = await bobPerson.open(receiver);
      await again.queueEmpty();
      assert.deepEqual(again.texts, ['while you were out']);
    } finally {
      await anonymous.close();
    }
  });
}

function chat(story) {
  story('two example chats talk, and one catches up after a pause', async ({ sender, receiver }) => {
    const folder = await mkdtemp(join(tmpdir(), 'blind-relay-chats-'));
    const chats = [];
    const start = (name, node, ...more) => {
      const window = new Chat(name, [
        ...['--server', node.address, '--ca', node.caFile, '--state', join(folder, `${name}.json`)],
        ...(process.env.BLIND_RELAY_TEST_CODE ? ['--code', process.env.BLIND_RELAY_TEST_CODE] : []),
        ...more,
      ]);
      chats.push(window);
      return window;
    };
    try {
      const alice = start('alice', sender, '--number', '+15550000001');
      const bob = start('bob', receiver, '--number', '+15550000002');
      const [aliceAci, bobAci] = [await alice.aci(), await bob.aci()];
      await Promise.all([alice.noted(/^connected$/m), bob.noted(/^connected$/m)]);
      const [fromAlice, fromBob] = [aliceAci, bobAci].map((aci) => (text) => `${aci.slice(0, 8)} ${text}`);

      // Bob's prekeys are published when his queue is empty; his last-resort key serves until then.
      alice.write(`/to ${bobAci}`, 'hello Bob', 'äöü 🦀');
      assert.deepEqual(await bob.read(2), ['hello Bob', 'äöü 🦀'].map(fromAlice));
      bob.write('hello Alice');
      assert.deepEqual(await alice.read(1), [fromBob('hello Alice')]);

      assert.equal(await bob.finish(), 0, bob.notes);
      const missed = numbered('missed', 20);
      alice.write(...missed, `/to ${randomUUID()}`, 'to nobody', `/to ${bobAci}`, 'last');
      await alice.noted(/no account .* with published keys/);
      assert.equal(await alice.finish(), 1, `one line was not sent\n${alice.notes}`);

      const bobAgain = start('bob', receiver);
      assert.deepEqual(await bobAgain.read(21), [...missed, 'last'].map(fromAlice));
      bobAgain.write('/quit');
      assert.equal(await bobAgain.exit(), 0, bobAgain.notes);

      const aliceAgain = start('alice', sender, '--to', bobAci);
      assert.equal(await aliceAgain.aci(), aliceAci);
      assert.equal(await aliceAgain.finish(), 0, aliceAgain.notes);
      assert.deepEqual(aliceAgain.lines, [], 'what was read does not come again');
    } finally {
      await Promise.all(chats.map((window) => window.kill()));
      await rm(folder, { recursive: true });
    }
  });

  story('an example chat reconnects after a restart of the server', async ({ nodes, sender, receiver }) => {
    const folder = await mkdtemp(join(tmpdir(), 'blind-relay-chats-'));
    const code = process.env.BLIND_RELAY_TEST_CODE ? ['--code', process.env.BLIND_RELAY_TEST_CODE] : [];
    const start = (name, node, number) =>
      new Chat(name, [
        ...['--server', node.address, '--ca', node.caFile, '--state', join(folder, `${name}.json`)],
        ...['--number', number, ...code],
      ]);
    const alice = start('alice', sender, '+15550000003');
    const bob = start('bob', receiver, '+15550000004');
    try {
      const [aliceAci, bobAci] = [await alice.aci(), await bob.aci()];
      await Promise.all([alice.noted(/^connected$/m), bob.noted(/^connected$/m)]);
      alice.write(`/to ${bobAci}`, 'before');
      await bob.read(1);
      await Promise.all(nodes.map((node) => node.stop()));
      await Promise.all([alice, bob].map((window) => window.noted(/connection lost/)));
      alice.write('typed while the server was away');
      for (const node of nodes) await node.start();
      await Promise.all([alice, bob].map((window) => window.noted(/connection lost[^]*connected/)));
      const name = aliceAci.slice(0, 8);
      assert.deepEqual(await bob.read(2), [`${name} before`, `${name} typed while the server was away`]);
    } finally {
      await Promise.all([alice, bob].map((window) => window.kill()));
      await rm(folder, { recursive: true });
    }
  });

  story('the example chat explains what went wrong', async ({ sender }) => {
    const folder = await mkdtemp(join(tmpdir(), 'blind-relay-chats-'));
    const state = join(folder, 'eve.json');
    const attempt = async (...args) => {
      const window = new Chat('eve', ['--state', state, ...args]);
      const status = await window.exit();
      return { status, notes: window.notes };
    };
    try {
      const here = ['--server', sender.address, '--ca', sender.caFile];
      const noNumber = await attempt(...here);
      assert.equal(noNumber.status, 1);
      assert.match(noNumber.notes, /there is no account in .*eve\.json yet[^]*--number/);

      const closedPort = await attempt('--server', 'https://127.0.0.1:1', '--ca', sender.caFile);
      assert.equal(closedPort.status, 1);
      assert.match(closedPort.notes, /nothing listens on port 1[^]*Start the server/);

      const wrongCa = await attempt('--server', sender.address, '--ca', OTHER_CA);
      assert.equal(wrongCa.status, 1);
      assert.match(wrongCa.notes, /certificate does not fit[^]*ca-cert\.pem/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}

/** Signs sender certificates: a stand-in for the server's, thrown away after the test. */
class Authority {
  #serverKey = PrivateKey.generate();
  #root = PrivateKey.generate();
  #server = ServerCertificate.new(1, this.#serverKey.getPublicKey(), this.#root);

  get trustRoot() {
    return this.#root.getPublicKey();
  }

  certify(device) {
    const tomorrow = Date.now() + 24 * 3600 * 1000;
    const { aci, deviceId, identity } = device;
    return SenderCertificate.new(aci, null, deviceId, identity.publicKey, tomorrow, this.#server, this.#serverKey);
  }
}

/** Two people online, strangers yet. */
async function pair(sender, receiver, register) {
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
async function acquainted(sender, receiver, register) {
  const [alice, bob] = await pair(sender, receiver, register);
  await alice.client.send(bob.client.device.aci, 'hello');
  await bob.read(1);
  await bob.client.send(alice.client.device.aci, 'hello');
  await alice.read(1);
  return [alice, bob];
}

/** A server may tell a sender that a message was delivered; no test depends on when it does. */
function withoutReceipts(window) {
  return window.envelopes.filter(({ type }) => type !== EnvelopeType.RECEIPT);
}

async function sendAll(window, aci, texts) {
  for (const text of texts) await window.client.send(aci, text);
}

/** Contents of a message that is never sent, for requests that are refused. */
async function borrowedContents(window) {
  const [address] = window.client.device.sessions.keys();
  const { contents } = await window.client.prepare(address.split('.')[0], 'never sent');
  return contents;
}

function sendTo(window, aci, contents) {
  return window.client.connection.sendMessage({
    destination: Aci.parseFromServiceIdString(aci),
    timestamp: Date.now(),
    contents,
    onlineOnly: false,
    urgent: true,
  });
}

function lists({ account, missingDevices, extraDevices, staleDevices }) {
  return {
    account: account.getServiceIdString(),
    missing: [...missingDevices],
    extra: [...extraDevices],
    stale: [...staleDevices],
  };
}

function pick({ count, pqCount }) {
  return { count, pqCount };
}

function someAccessKey() {
  return new Uint8Array(randomBytes(16));
}
