// Messages of which the server does not know the sender.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import {
  Aci,
  ErrorCode,
  PrivateKey,
  SenderCertificate,
  ServerCertificate,
  sealedSenderDecryptMessage,
} from '../../../examples/chat/lib/signal.mjs';
import { EnvelopeType } from '../../../examples/chat/lib/envelope.mjs';
import { connectAnonymously } from '../support/afterwards.mjs';
import { Inbox } from '../support/inbox.mjs';
import { refusal } from '../support/person.mjs';
import { certificateOf, eventually, lists, looksSealed, meet, setAccess, someAccessKey } from '../support/scenes.mjs';

export function sealedSender(story) {
  story('a sealed message and its reply arrive, and the server does not say from whom', async ({ sender, receiver, register }) => {
    const { alice, bob } = await cast(sender, receiver, register);
    const anonymous = await connectAnonymously(sender);
    const replies = await connectAnonymously(receiver);
    try {
      const seal = await sealer(alice, bob, anonymous);
      await seal('guess who', bob.client.device.accessKey);
      assert.deepEqual(await bob.read(1), ['guess who']);
      const [envelope] = bob.envelopes;
      assert.equal(envelope.type, EnvelopeType.SEALED);
      assert.equal(envelope.source, undefined);
      assert.equal(envelope.sourceDevice, undefined);
      assert.equal(envelope.destination, bob.client.device.aci);
      assert.equal(bob.messages[0].from, alice.client.device.aci);
      assert.equal(bob.messages[0].device, 1);
      assert.equal(bob.messages[0].sealed, true);

      const reply = await sealer(bob, alice, replies);
      await reply('I know you', alice.client.device.accessKey);
      assert.deepEqual(await alice.read(1), ['I know you']);
      assert.deepEqual(
        alice.messages.map(({ from, sealed }) => ({ from, sealed })),
        [{ from: bob.client.device.aci, sealed: true }],
      );

      await bob.roundTrip();
      await bob.close();
      await seal('while you were out', bob.client.device.accessKey);
      const again = await bob.person.open(receiver);
      await again.queueEmpty();
      assert.deepEqual(again.texts, ['while you were out']);
    } finally {
      await anonymous.close();
      await replies.close();
    }
  });

  story('a certificate says who holds it, under the trust root of the server', async ({ nodes, register }) => {
    for (const node of nodes) {
      const alice = await (await register(node, 'Alice')).open(node);
      const { device } = alice.client;
      // One root for all nodes, whichever of them certifies.
      const trustRoot = await nodes[0].trustRoot();
      const certificate = await certificateOf(alice);
      assert.equal(certificate.senderUuid(), device.aci);
      assert.equal(certificate.senderDeviceId(), 1);
      assert.ok(certificate.key().equals(device.identity.publicKey));
      assert.equal(certificate.senderE164(), null);
      assert.equal((await certificateOf(alice, { number: true })).senderE164(), device.number);

      assert.ok(certificate.validate(trustRoot, Date.now()));
      assert.ok(certificate.validate(trustRoot, certificate.expiration()));
      assert.ok(!certificate.validate(trustRoot, certificate.expiration() + 1), 'it expires');
      assert.ok(!certificate.validate(PrivateKey.generate().getPublicKey(), Date.now()), 'another root does not vouch');
    }
  });

  story('a receiver refuses certificates that are foreign or expired', async ({ sender, receiver, register }) => {
    const { alice, bob, trustRoot } = await cast(sender, receiver, register);
    const { device } = bob.client;
    await bob.close();
    const foreign = new Authority();
    const own = await certificateOf(alice);
    const anonymous = await connectAnonymously(sender);
    const inbox = await Inbox.open(receiver, device);
    try {
      await meet(alice, device.aci);
      const deliver = (certificate) =>
        alice.client.sendSealed(anonymous.connection, device.aci, 'believe me', { accessKey: device.accessKey, certificate });
      const open = ({ content }, root, time) =>
        sealedSenderDecryptMessage(
          content,
          root,
          time,
          null,
          device.aci,
          device.deviceId,
          device.sessionStore,
          device.identityStore,
          device.preKeyStore,
          device.signedPreKeyStore,
          device.kyberPreKeyStore,
        );

      await deliver(foreign.certify(alice.client.device));
      const first = await inbox.take(1);
      await assert.rejects(open(first, trustRoot, Date.now()), /trust root validation failed/);
      assert.equal((await open(first, foreign.trustRoot, Date.now())).senderUuid(), alice.client.device.aci);

      await deliver(own);
      const second = await inbox.take(2);
      await assert.rejects(open(second, trustRoot, own.expiration() + 1), /trust root validation failed/);
      await assert.rejects(open(second, foreign.trustRoot, Date.now()), /trust root validation failed/);
      assert.equal((await open(second, trustRoot, second.timestamp)).senderUuid(), alice.client.device.aci);
    } finally {
      await inbox.close();
      await anonymous.close();
    }
  });

  story('strangers need the access key, unless the account is open to all', async ({ sender, receiver, register }) => {
    const { alice, bob } = await cast(sender, receiver, register);
    const { device } = bob.client;
    const anonymous = await connectAnonymously(sender);
    const { connection } = anonymous;
    try {
      const seal = await sealer(alice, bob, anonymous);
      await refusal(seal('with a wrong key', someAccessKey()), ErrorCode.RequestUnauthorized);
      const contents = [{ deviceId: 1, registrationId: device.registrationId, contents: looksSealed(100) }];
      const sendTo = (aci, auth) =>
        connection.sendMessage({
          destination: Aci.parseFromServiceIdString(aci),
          timestamp: Date.now(),
          contents,
          auth,
          onlineOnly: false,
          urgent: true,
        });
      await refusal(sendTo(randomUUID(), { accessKey: device.accessKey }), ErrorCode.RequestUnauthorized);
      await refusal(sendTo(device.aci, 'unrestricted'), ErrorCode.RequestUnauthorized);

      const changed = someAccessKey();
      const old = device.accessKey;
      await setAccess(bob, { accessKey: changed });
      // Whoever shows the new one is believed at once, on every node.
      await seal('with the new key', changed);
      assert.deepEqual(await bob.read(1), ['with the new key']);
      await refusal(seal('with the old key', old), ErrorCode.RequestUnauthorized);

      await setAccess(bob, { unrestricted: true });
      await seal('with any key', someAccessKey());
      const target = { target: Aci.parseFromServiceIdString(device.aci), device: 'all', auth: 'unrestricted' };
      assert.equal((await connection.getPreKeys(target)).preKeyBundles.length, 1);
      assert.deepEqual((await bob.read(2)).slice(1), ['with any key']);

      // Other nodes hear of a key that counts no more a moment later.
      await setAccess(bob, { accessKey: changed });
      await eventually(() => refusal(connection.getPreKeys(target), ErrorCode.RequestUnauthorized));
    } finally {
      await anonymous.close();
    }
  });

  story('a sealed message to wrong devices is corrected as others are', async ({ sender, receiver, register, linkTo }) => {
    const { alice, bob, trustRoot } = await cast(sender, receiver, register);
    const { aci, accessKey } = bob.client.device;
    const anonymous = await connectAnonymously(sender);
    try {
      const seal = await sealer(alice, bob, anonymous);
      const tablet = await (await linkTo(bob, receiver, { trustRoot })).open(receiver);
      const wrong = await refusal(seal('never read', accessKey), ErrorCode.MismatchedDevices);
      assert.deepEqual(wrong.entries.map(lists), [{ account: aci, missing: [2], extra: [], stale: [] }]);
      await meet(alice, aci);
      await seal('to both', accessKey);
      assert.deepEqual(await bob.read(1), ['to both']);
      assert.deepEqual(await tablet.read(1), ['to both']);
      assert.equal(tablet.messages[0].sealed, true);
    } finally {
      await anonymous.close();
    }
  });

  story('a linked device seals under a certificate of its own', async ({ sender, receiver, register, linkTo }) => {
    const { alice, bob, trustRoot } = await cast(sender, receiver, register);
    const tablet = await (await linkTo(alice, sender, { trustRoot })).open(sender);
    const anonymous = await connectAnonymously(sender);
    try {
      const seal = await sealer(tablet, bob, anonymous);
      await seal('from the tablet', bob.client.device.accessKey);
      assert.deepEqual(await bob.read(1), ['from the tablet']);
      const { from, device, sealed } = bob.messages[0];
      assert.deepEqual({ from, device, sealed }, { from: alice.client.device.aci, device: 2, sealed: true });
    } finally {
      await anonymous.close();
    }
  });
}

/** Two strangers online who believe this server's certificates. */
async function cast(sender, receiver, register) {
  const trustRoot = await sender.trustRoot();
  const open = async (node, name) => {
    const person = await register(node, name, { trustRoot });
    const window = await person.open(node);
    window.person = person;
    await window.queueEmpty();
    return window;
  };
  return { alice: await open(sender, 'Alice'), bob: await open(receiver, 'Bob'), trustRoot };
}

/** Writes sealed from one window to the other's account. */
async function sealer(from, to, anonymous) {
  const { aci } = to.client.device;
  const certificate = await certificateOf(from);
  if (from.client.device.knownDevices(aci).length === 0) await meet(from, aci);
  return (text, accessKey) => from.client.sendSealed(anonymous.connection, aci, text, { accessKey, certificate });
}

/** Signs sender certificates as this server's would be, under another root. */
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
