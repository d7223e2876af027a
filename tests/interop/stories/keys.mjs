// Prekeys: published, counted, handed out.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { Aci, ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { connectAnonymously } from '../support/afterwards.mjs';
import { refusal } from '../support/person.mjs';
import { UNLIMITED, pick, someAccessKey } from '../support/scenes.mjs';

export function keys(story) {
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
  }, UNLIMITED);

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
  }, UNLIMITED);

  story('what the server says of few keys disturbs no client', async ({ sender, receiver, register }) => {
    const bob = await register(receiver, 'Bob', { preKeys: 3 });
    const alice = await (await register(sender, 'Alice')).open(sender);
    const window = await bob.open(receiver);
    await alice.client.takeBundles(bob.aci);
    await alice.client.takeBundles(bob.aci);
    await alice.client.send(bob.aci, 'behind the notice');
    assert.deepEqual(await window.read(1), ['behind the notice']);
    await window.client.send(alice.client.device.aci, 'and back');
    assert.deepEqual(await alice.read(1), ['and back']);
    // So few are kept for those who show the access key.
    assert.deepEqual(pick(await window.client.preKeyCounts()), { count: 3, pqCount: 3 });
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
