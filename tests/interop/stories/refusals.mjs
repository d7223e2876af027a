// What a server refuses, and that the library reads each refusal as what it is.

import assert from 'node:assert/strict';

import { Aci, ErrorCode, Pni } from '../../../examples/chat/lib/signal.mjs';
import { isFinal } from '../../../examples/chat/lib/link.mjs';
import { connectAnonymously } from '../support/afterwards.mjs';
import { Candidate } from '../support/linking.mjs';
import { numbered, refusal } from '../support/person.mjs';
import {
  acquainted,
  borrowedContents,
  certificateOf,
  eventually,
  looksSealed,
  sendAll,
  sendTo,
} from '../support/scenes.mjs';

const LARGEST = 96 * 1024;

export function refusals(story) {
  story('too many key fetches are RateLimited', async ({ sender, receiver, register }) => {
    const bob = await register(receiver, 'Bob');
    const carol = await register(receiver, 'Carol');
    const anonymous = await connectAnonymously(sender);
    try {
      const fetch = ({ aci, device: { accessKey } }) =>
        anonymous.connection.getPreKeys({ target: Aci.parseFromServiceIdString(aci), device: 'all', auth: { accessKey } });
      for (let fetched = 0; fetched < 3; fetched += 1) await fetch(bob);
      const { retryAfterSecs } = await refusal(fetch(bob), ErrorCode.RateLimitedError);
      assert.ok(retryAfterSecs > 0 && retryAfterSecs <= 3600, `${retryAfterSecs} seconds`);
      await fetch(carol);
    } finally {
      await anonymous.close();
    }
  }, { RATE_LIMITS: '0.1' });

  story('a full queue is RateLimited, until it has been read', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci, accessKey } = bob.client.device;
    const certificate = await certificateOf(alice);
    await bob.roundTrip();
    await bob.close();
    const anonymous = await connectAnonymously(sender);
    try {
      await sendAll(alice, aci, numbered('fits', 3));
      const full = await refusal(alice.client.send(aci, 'does not fit'), ErrorCode.RateLimitedError);
      assert.equal(full.retryAfterSecs, 600);
      const sealed = alice.client.sendSealed(anonymous.connection, aci, 'nor sealed', { accessKey, certificate });
      assert.equal((await refusal(sealed, ErrorCode.RateLimitedError)).retryAfterSecs, 600);
      const again = await bob.person.open(receiver);
      await again.queueEmpty();
      assert.deepEqual(again.texts, numbered('fits', 3));
      await again.roundTrip();
      await alice.client.send(aci, 'fits again');
      assert.equal((await again.read(4))[3], 'fits again');
    } finally {
      await anonymous.close();
    }
  }, { QUEUE__MAX_ENVELOPES: '3', QUEUE__SENDER_SHARE_PERCENT: '100' });

  story('what is too large or malformed is an error of its own, and reaches nobody', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    const [content] = await borrowedContents(alice);
    const sized = (bytes) => ({ ...content, contents: looksSealed(bytes) });
    const anonymous = await connectAnonymously(sender);
    try {
      const { accessKey } = bob.client.device;
      const send = (contents) =>
        anonymous.connection.sendMessage({
          destination: Aci.parseFromServiceIdString(aci),
          timestamp: Date.now(),
          contents,
          auth: { accessKey },
          onlineOnly: false,
          urgent: true,
        });
      const large = await refusal(send([sized(LARGEST + 1)]), ErrorCode.IoError);
      assert.match(large.message, /413/);
      const readable = { ...content, contents: new Uint8Array(Buffer.from('Meet me at nine. '.repeat(9))) };
      const unsealed = await refusal(send([readable]), ErrorCode.IoError);
      assert.match(unsealed.message, /did not pass server validation/);
      const twice = await refusal(send([sized(100), sized(100)]), ErrorCode.IoError);
      assert.match(twice.message, /did not pass server validation/);
    } finally {
      await anonymous.close();
    }
    const own = Pni.fromUuid(alice.client.device.pni);
    const toOwnPni = alice.client.connection.sendMessage({
      destination: own,
      timestamp: Date.now(),
      contents: [content],
      onlineOnly: false,
      urgent: true,
    });
    assert.match((await refusal(toOwnPni, ErrorCode.IoError)).message, /403/);
    await alice.client.send(aci, 'the next one');
    assert.deepEqual((await bob.read(2)).slice(1), ['the next one']);
  });

  story('a deleted account is closed, forgotten and not found', async ({ sender, receiver, register, linkTo }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci, accessKey } = bob.client.device;
    const tablet = await (await linkTo(bob, sender)).open(sender);
    const certificate = await certificateOf(alice);
    assert.equal((await bob.client.request('DELETE', '/v1/accounts/me')).status, 204);
    for (const window of [bob, tablet]) {
      await window.until(() => window.interruptions.length > 0, `the connection of ${window.name} to be closed`);
      assert.equal(window.interruptions[0]?.code, ErrorCode.ConnectionInvalidated, `${window.interruptions[0]}`);
    }
    await refusal(bob.person.open(receiver), ErrorCode.DeviceDelinked);
    await refusal(bob.person.open(sender), ErrorCode.DeviceDelinked);
    await refusal(sendTo(alice, aci, await borrowedContents(alice)), ErrorCode.ServiceIdNotFound);
    const anonymous = await connectAnonymously(sender);
    try {
      const sealed = alice.client.sendSealed(anonymous.connection, aci, 'anybody', { accessKey, certificate });
      await refusal(sealed, ErrorCode.RequestUnauthorized);
      assert.equal(await anonymous.connection.accountExists({ account: Aci.parseFromServiceIdString(aci) }), false);
    } finally {
      await anonymous.close();
    }
  });

  story('a connection that is gone is ChatServiceInactive', async ({ sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { connection } = alice.client;
    const contents = await borrowedContents(alice);
    await alice.close();
    const late = connection.sendMessage({
      destination: Aci.parseFromServiceIdString(bob.client.device.aci),
      timestamp: Date.now(),
      contents,
      onlineOnly: false,
      urgent: true,
    });
    await refusal(late, ErrorCode.ChatServiceInactive);
  });

  story('too many devices that wait to be linked are RateLimited', async ({ sender }) => {
    const first = await Candidate.open(sender);
    const { retryAfterSecs } = await refusal(Candidate.open(sender), ErrorCode.RateLimitedError);
    assert.ok(retryAfterSecs > 0, `${retryAfterSecs} seconds`);
    await first.close();
    await eventually(async () => (await Candidate.open(sender)).close());
  }, { LIMITS__MAX_PROVISIONING_SOCKETS: '1' });

  story('a server that stops is a lost connection, no more', async ({ nodes, sender, receiver, register }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    for (const node of nodes) await node.stop();
    for (const window of [alice, bob]) {
      await window.until(() => window.interruptions.length > 0, `${window.name} to feel the stop`);
      const [cause] = window.interruptions;
      assert.ok(!isFinal(cause), `${cause}`);
    }
    await refusal(alice.person.open(sender), ErrorCode.IoError);
    for (const node of nodes) await node.start();
    const again = await alice.person.open(sender);
    await again.queueEmpty();
  });
}
