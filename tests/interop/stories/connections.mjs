// Connections that come, displace each other and are refused; acknowledgements.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { Candidate, handOver } from '../support/linking.mjs';
import { assertSameTexts, numbered, refusal } from '../support/person.mjs';
import { acquainted, sendAll, sendByRequest, withoutReceipts } from '../support/scenes.mjs';
import { within } from '../support/wait.mjs';

export function connections(story) {
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

  story('everything but gRPC works over HTTP/2 as well', async ({ sender, receiver, register }) => {
    const over2 = { httpVersion: 2 };
    const alicePerson = await register(sender, 'Alice');
    const bobPerson = await register(receiver, 'Bob');
    const alice = await alicePerson.open(sender, over2);
    const bob = await bobPerson.open(receiver, over2);
    await Promise.all([alice.queueEmpty(), bob.queueEmpty()]);
    await sendByRequest(alice, bobPerson.aci, 'hello Bob');
    assert.deepEqual(await bob.read(1), ['hello Bob']);
    await sendByRequest(bob, alicePerson.aci, 'hello Alice');
    assert.deepEqual(await alice.read(1), ['hello Alice']);

    const newer = await bobPerson.open(sender);
    await bob.until(() => bob.interruptions.length > 0, 'the HTTP/2 connection to be displaced');
    assert.equal(bob.interruptions[0]?.code, ErrorCode.ConnectedElsewhere, `${bob.interruptions[0]}`);
    await newer.queueEmpty();
    await sendByRequest(alice, bobPerson.aci, 'to the newer window');
    assert.deepEqual(await newer.read(1), ['to the newer window']);

    assert.equal((await newer.client.request('DELETE', '/v1/accounts/me')).status, 204);
    await refusal(bobPerson.open(sender, over2), ErrorCode.DeviceDelinked);
    const candidate = await Candidate.open(receiver, over2);
    assert.equal(await handOver(alice, candidate, 'code'), 204);
    assert.equal((await candidate.provision()).aci, alicePerson.aci);
    await candidate.ended();
  });
}
