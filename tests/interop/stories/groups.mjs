// One message to many accounts at once.

import assert from 'node:assert/strict';

import { Aci, ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { base64, bytesFrom } from '../../../examples/chat/lib/device.mjs';
import { EnvelopeType } from '../../../examples/chat/lib/envelope.mjs';
import { connectAnonymously } from '../support/afterwards.mjs';
import { GroupReader, GroupSender, sendToAll, someGroupSendToken } from '../support/groups.mjs';
import { Inbox } from '../support/inbox.mjs';
import { refusal } from '../support/person.mjs';
import { certificateOf, lists, meet, someAccessKey } from '../support/scenes.mjs';

const MEMBERS = 5;

export function groups(story) {
  story('a group message reaches two devices of each of five members', async (stage) => {
    const { alice, members, group, inboxes, anonymous, close } = await gather(stage, MEMBERS);
    try {
      assert.equal(inboxes.length, 2 * MEMBERS);
      const acis = members.map(({ aci }) => aci);
      const accessKeys = members.map(({ accessKey }) => accessKey);
      const sentAt = Date.now();
      const payload = await group.seal('hello all', acis);
      const { status, json } = await sendToAll(anonymous, payload, { accessKeys, timestamp: sentAt });
      assert.equal(status, 200);
      assert.deepEqual(json, { uuids404: [] });
      for (const { inbox, reader } of inboxes) {
        const envelope = await inbox.take(1);
        assert.equal(envelope.type, EnvelopeType.SEALED);
        assert.equal(envelope.source, undefined);
        assert.equal(envelope.timestamp, sentAt);
        assert.equal(envelope.destination, inbox.device.aci);
        assert.equal(await reader.read(envelope), 'hello all');
      }

      // The library's own call, as it is used for stories: no proof is asked for.
      const story = await group.seal('a story', acis);
      const { unregisteredIds } = await sendStory(anonymous, story);
      assert.deepEqual(unregisteredIds, []);
      for (const { inbox, reader } of inboxes) assert.equal(await reader.read(await inbox.take(2)), 'a story');

      const [left, ...rest] = acis;
      const most = await group.seal('not for the first', rest, { without: [left] });
      assert.equal((await sendToAll(anonymous, most, { accessKeys: accessKeys.slice(1) })).status, 200);
      const last = await group.seal('for all again', acis);
      assert.equal((await sendToAll(anonymous, last, { accessKeys })).status, 200);
      for (const { inbox, reader } of inboxes) {
        const expected = inbox.device.aci === left ? ['for all again'] : ['not for the first', 'for all again'];
        for (const [i, text] of expected.entries()) assert.equal(await reader.read(await inbox.take(3 + i)), text);
        assert.equal(inbox.envelopes.length, 2 + expected.length);
      }
      assert.equal(alice.problems.length, 0);
    } finally {
      await close();
    }
  });

  story('a group message waits for devices that are away', async (stage) => {
    const { members, group, inboxes, anonymous, close } = await gather(stage, 2);
    try {
      const acis = members.map(({ aci }) => aci);
      const accessKeys = members.map(({ accessKey }) => accessKey);
      for (const { inbox } of inboxes) await inbox.close();
      for (const text of ['one', 'two']) {
        assert.equal((await sendToAll(anonymous, await group.seal(text, acis), { accessKeys })).status, 200);
      }
      for (const { inbox, reader } of inboxes) {
        const again = await Inbox.open(stage.receiver, inbox.device, { stories: true });
        assert.equal(await reader.read(await again.take(1)), 'one');
        assert.equal(await reader.read(await again.take(2)), 'two');
        await again.close();
      }
    } finally {
      await close();
    }
  });

  story('a group message to wrong devices is corrected for each member, and reaches nobody', async (stage) => {
    const { receiver, register, linkTo } = stage;
    const { alice, members, group, inboxes, anonymous, close } = await gather(stage, 3);
    try {
      const [first, second, third] = members;
      const acis = members.map(({ aci }) => aci);
      const accessKeys = members.map(({ accessKey }) => accessKey);
      const before = await group.seal('never read', acis);

      const phone = await first.person.open(receiver);
      await linkTo(phone, receiver);
      const secondPhone = await second.person.open(receiver);
      assert.equal((await secondPhone.client.request('DELETE', '/v1/devices/2')).status, 204);
      await phone.close();
      await secondPhone.close();
      const byAccount = (a, b) => a.account.localeCompare(b.account);
      const expected = [
        { account: first.aci, missing: [3], extra: [], stale: [] },
        { account: second.aci, missing: [], extra: [2], stale: [] },
      ];
      const { entries } = await refusal(sendStory(anonymous, before), ErrorCode.MismatchedDevices);
      assert.deepEqual(entries.map(lists).sort(byAccount), expected.sort(byAccount));
      const raw = await sendToAll(anonymous, before, { accessKeys });
      assert.equal(raw.status, 409);

      // Whoever registers again has other devices and other keys; the same device with another registration is stale.
      const again = await register(receiver, 'the third again', { number: third.person.device.number, preKeys: 0 });
      for (const { aci } of [first, second]) {
        for (const id of alice.client.device.knownDevices(aci)) alice.client.device.sessions.delete(`${aci}.${id}`);
        await meet(alice, aci);
      }
      alice.client.device.sessions.delete(`${third.aci}.2`);
      const old = await refusal(sendStory(anonymous, await group.seal('never read', acis)), ErrorCode.MismatchedDevices);
      assert.deepEqual(old.entries.map(lists), [{ account: third.aci, missing: [], extra: [], stale: [1] }]);

      // Nobody has got anything before the first message that is right for all.
      alice.client.device.sessions.delete(`${third.aci}.1`);
      alice.client.device.trustAgain(third.aci);
      await meet(alice, third.aci);
      const right = await sendToAll(anonymous, await group.seal('read', acis), {
        accessKeys: [...accessKeys.slice(0, 2), again.device.accessKey],
      });
      assert.equal(right.status, 200);
      const stay = inboxes.filter(({ inbox: { device } }) => device !== second.tablet && device.aci !== third.aci);
      for (const { inbox, reader } of stay) {
        // The windows above have displaced those of the phones.
        const displaced = inbox.interruptions.length > 0;
        if (displaced) assert.deepEqual(inbox.envelopes, []);
        const open = displaced ? await Inbox.open(receiver, inbox.device) : inbox;
        assert.equal(await reader.read(await open.take(1)), 'read', `${inbox.device.address}`);
        await open.close();
      }
    } finally {
      await close();
    }
  });

  story('a group message without the right proof is RequestUnauthorized', async (stage) => {
    const { members, group, inboxes, anonymous, close } = await gather(stage, 2);
    try {
      const acis = members.map(({ aci }) => aci);
      const accessKeys = members.map(({ accessKey }) => accessKey);
      const payload = await group.seal('never read', acis);
      const request = { payload, timestamp: Date.now(), onlineOnly: false, urgent: true };
      const token = someGroupSendToken(acis);
      await refusal(anonymous.sendMultiRecipientMessage({ ...request, auth: token }), ErrorCode.RequestUnauthorized);
      const target = Aci.parseFromServiceIdString(acis[0]);
      await refusal(anonymous.getPreKeys({ target, device: 'all', auth: token }), ErrorCode.RequestUnauthorized);
      assert.equal((await sendToAll(anonymous, payload, { accessKeys: accessKeys.slice(1) })).status, 401);
      assert.equal((await sendToAll(anonymous, payload, { accessKeys: [...accessKeys, someAccessKey()] })).status, 401);
      assert.equal((await sendToAll(anonymous, await group.seal('read', acis), { accessKeys })).status, 200);
      for (const { inbox, reader } of inboxes) assert.equal(await reader.read(await inbox.take(1)), 'read');
    } finally {
      await close();
    }
  });
}

/** Alice, members with two devices each, sessions with all of them, and her sender key in the hands of all of them. */
async function gather({ sender, receiver, register, linkTo }, count) {
  const trustRoot = await sender.trustRoot();
  const alice = await (await register(sender, 'Alice')).open(sender);
  const group = new GroupSender(alice.client.device, await certificateOf(alice));
  const distribution = await group.distribution();
  const members = [];
  const inboxes = [];
  for (let i = 0; i < count; i += 1) {
    const person = await register(receiver, `Member ${i}`, { preKeys: 0 });
    const phone = await person.open(receiver);
    const other = await linkTo(phone, receiver);
    const tablet = await other.open(receiver);
    await meet(alice, person.aci);
    await alice.client.send(person.aci, base64(distribution));
    for (const window of [phone, tablet]) {
      const { device } = window.client;
      const reader = new GroupReader(device, trustRoot);
      const [text] = await window.read(1);
      await reader.meet(alice.client.device.address, bytesFrom(text));
      await window.roundTrip();
      await window.close();
      inboxes.push({ reader, inbox: await Inbox.open(receiver, device, { stories: true }) });
    }
    members.push({ person, tablet: other.device, aci: person.aci, accessKey: person.device.accessKey });
  }
  const { connection: anonymous, close: closeAnonymous } = await connectAnonymously(sender);
  const close = async () => {
    await closeAnonymous();
    for (const { inbox } of inboxes) await inbox.close();
  };
  return { alice, group, members, inboxes, anonymous, close };
}

function sendStory(connection, payload) {
  const timestamp = Date.now();
  return connection.sendMultiRecipientMessage({ payload, timestamp, auth: 'story', onlineOnly: false, urgent: true });
}
