// Messages from one person to another.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { UnknownRecipient } from '../../../examples/chat/lib/client.mjs';
import { EnvelopeType } from '../../../examples/chat/lib/envelope.mjs';
import { assertNoRepeats, assertSameTexts, numbered, refusal } from '../support/person.mjs';
import { UNLIMITED, acquainted, borrowedContents, lists, pair, sendAll, sendTo, withoutReceipts } from '../support/scenes.mjs';

export function messages(story) {
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
  }, UNLIMITED);

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

  story('what is for those online only waits for nobody', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    const type = async (text) => {
      const { contents } = await alice.client.prepare(aci, text);
      await sendTo(alice, aci, contents, { onlineOnly: true });
    };
    await type('Alice is typing');
    assert.deepEqual((await bob.read(2)).slice(1), ['Alice is typing']);
    await bob.roundTrip();
    await bob.close();
    await type('Alice is typing again');
    await alice.client.send(aci, 'what she typed');
    const again = await bob.person.open(receiver);
    await again.queueEmpty();
    assert.deepEqual(again.texts, ['what she typed']);
  });
}
