// One account on several devices: linked, written to, listed, removed.

import assert from 'node:assert/strict';

import { ErrorCode } from '../../../examples/chat/lib/signal.mjs';
import { base64, bytesFrom } from '../../../examples/chat/lib/device.mjs';
import { Candidate, CAPABILITIES, handOver, linkCode, makeLinkedDevice, putLink, sync } from '../support/linking.mjs';
import { Person, refusal } from '../support/person.mjs';
import { acquainted, borrowedContents, lists, sendTo } from '../support/scenes.mjs';

export function linking(story) {
  story('a device is linked, and messages to its account reach both', async ({ sender, receiver, register, linkTo }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    // With two nodes the tablet is connected to another one than the phone.
    const person = await linkTo(bob, sender, { preKeys: 5 });
    assert.equal(person.device.deviceId, 2);
    const tablet = await person.open(sender);
    await tablet.queueEmpty();

    const toOne = await borrowedContents(alice);
    const wrong = await refusal(sendTo(alice, aci, toOne), ErrorCode.MismatchedDevices);
    assert.deepEqual(wrong.entries.map(lists), [{ account: aci, missing: [2], extra: [], stale: [] }]);
    await alice.client.send(aci, 'to both');
    assert.deepEqual((await bob.read(2)).slice(1), ['to both']);
    assert.deepEqual(await tablet.read(1), ['to both']);

    await tablet.client.send(alice.client.device.aci, 'from the tablet');
    assert.deepEqual((await alice.read(2)).slice(1), ['from the tablet']);
    const { from, device } = alice.messages[1];
    assert.deepEqual({ from, device }, { from: aci, device: 2 });
  });

  story('devices of one account tell each other what they sent', async ({ sender, receiver, register, linkTo }) => {
    const phone = await (await register(receiver, 'Alice')).open(receiver);
    const tablet = await (await linkTo(phone, sender)).open(sender);
    const { aci } = phone.client.device;
    const [bundle] = await tablet.client.takeBundles(aci, 1);
    await tablet.client.startSession(aci, bundle);
    await sync(tablet, 'the tablet wrote to Bob');
    assert.deepEqual(await phone.read(1), ['the tablet wrote to Bob']);
    const { from, device } = phone.messages[0];
    assert.deepEqual({ from, device }, { from: aci, device: 2 });
    await sync(phone, 'the phone has read it');
    assert.deepEqual(await tablet.read(1), ['the phone has read it']);

    const { contents } = await phone.client.prepare(aci, 'never sent');
    const toThird = { timestamp: Date.now(), contents: [{ ...contents[0], deviceId: 3 }], urgent: true };
    const wrong = await refusal(phone.client.connection.sendSyncMessage(toThird), ErrorCode.MismatchedDevices);
    assert.deepEqual(wrong.entries.map(lists), [{ account: aci, missing: [2], extra: [3], stale: [] }]);
  });

  story('an account reads when its devices came, and names them', async ({ sender, receiver, register, linkTo }) => {
    const before = Date.now();
    const phone = await (await register(receiver, 'Alice')).open(receiver);
    const tablet = await (await linkTo(phone, sender)).open(sender);
    const name = base64(Buffer.alloc(57, 'name'));
    const renamed = await phone.client.request('PUT', '/v1/accounts/name?deviceId=2', { deviceName: name });
    assert.equal(renamed.status, 204);
    for (const window of [phone, tablet]) {
      const { status, json } = await window.client.request('GET', '/v1/devices');
      assert.equal(status, 200);
      assert.deepEqual(json.devices.map(({ id }) => id), [1, 2]);
      assert.equal(json.devices[1].name, name);
      for (const [index, listed] of json.devices.entries()) {
        const device = [phone, tablet][index].client.device;
        assert.equal(listed.registrationId, device.registrationId);
        const created = createdAt(listed, device);
        assert.ok(created >= before && created <= Date.now(), `${created} is between ${before} and now`);
      }
    }
  });

  story('a removed device is told so, and nobody writes to it any more', async ({ sender, receiver, register, linkTo }) => {
    const [alice, bob] = await acquainted(sender, receiver, register);
    const { aci } = bob.client.device;
    const person = await linkTo(bob, sender);
    const tablet = await person.open(sender);
    await alice.client.send(aci, 'to both');
    await tablet.read(1);

    assert.equal((await bob.client.request('DELETE', '/v1/devices/2')).status, 204);
    await tablet.until(() => tablet.interruptions.length > 0, 'the connection of the removed device to be closed');
    assert.equal(tablet.interruptions[0]?.code, ErrorCode.ConnectionInvalidated, `${tablet.interruptions[0]}`);
    await refusal(person.open(sender), ErrorCode.DeviceDelinked);
    await refusal(person.open(receiver), ErrorCode.DeviceDelinked);

    const wrong = await refusal(sendTo(alice, aci, await borrowedContents(alice)), ErrorCode.MismatchedDevices);
    assert.deepEqual(wrong.entries.map(lists), [{ account: aci, missing: [], extra: [2], stale: [] }]);
    await alice.client.send(aci, 'to one');
    assert.deepEqual((await bob.read(3)).slice(1), ['to both', 'to one']);
    assert.deepEqual(alice.client.device.knownDevices(aci), [1]);

    // Its number is free again; the next one begins with nothing.
    const next = await (await linkTo(bob, sender)).open(sender);
    assert.equal(next.client.device.deviceId, 2);
    await next.queueEmpty();
    assert.deepEqual(next.envelopes, []);
    await alice.client.send(aci, 'to the new one as well');
    assert.deepEqual(await next.read(1), ['to the new one as well']);

    // A linked device may also go by itself.
    assert.equal((await next.client.request('DELETE', '/v1/devices/1')).status, 401);
    assert.equal((await next.client.request('DELETE', '/v1/devices/2')).status, 204);
    await next.until(() => next.interruptions.length > 0, 'the connection of the device that left to be closed');
    assert.equal(next.interruptions[0]?.code, ErrorCode.ConnectionInvalidated);
  });

  story('a primary waits for the device that takes its code', async ({ sender, receiver, register }) => {
    const phone = await (await register(receiver, 'Alice')).open(receiver);
    const candidate = await Candidate.open(sender);
    const { verificationCode, tokenIdentifier } = await linkCode(phone);
    const path = `/v1/devices/wait_for_linked_device/${tokenIdentifier}`;
    const nobody = await phone.client.request('GET', `${path}?timeout=1`);
    assert.equal(nobody.status, 204);
    const waiting = phone.client.request('GET', `${path}?timeout=15`);
    assert.equal(await handOver(phone, candidate, verificationCode), 204);
    const { device, request } = await makeLinkedDevice(await candidate.provision());
    await candidate.ended();
    const linked = await putLink(sender, device, request);
    assert.equal(linked.status, 200);
    assert.deepEqual(linked.json, { uuid: device.aci, pni: device.pni, deviceId: 2 });
    const { status, json } = await waiting;
    assert.equal(status, 200);
    assert.equal(json.id, 2);
    assert.equal(json.registrationId, device.registrationId);
    device.deviceId = 2;
    assert.ok(createdAt(json, device) <= Date.now());
  });

  story('what does not lead to a linked device leaves no trace', async ({ sender, receiver, register, linkTo }) => {
    const capabilities = new Set(['spqr', 'usernameChangeSyncMessage']);
    const phone = await (await register(receiver, 'Alice', { attributes: { capabilities } })).open(receiver);
    const attempt = async (change, more = {}) => {
      const { verificationCode } = await linkCode(phone);
      const { device: own } = phone.client;
      const { device, request } = await makeLinkedDevice({ ...own, code: verificationCode }, more);
      await change(request);
      const { status, json } = await putLink(sender, device, request);
      return { status, json, request, device };
    };
    const other = await makeLinkedDevice({ ...(await register(sender, 'Bob')).device, code: '' });
    const strange = await attempt((request) => (request.aciSignedPreKey = other.request.aciSignedPreKey));
    assert.equal(strange.status, 422, 'keys that another identity signed');
    assert.equal((await attempt((request) => (request.verificationCode += 'x'))).status, 403);
    const less = { ...CAPABILITIES, usernameChangeSyncMessage: false };
    assert.equal((await attempt(() => {}, { capabilities: less })).status, 409, 'less able than the others');

    const nobody = { address: Buffer.alloc(16).toString('base64url') + '==', publicKey: phone.client.device.identity.publicKey };
    assert.equal(await handOver(phone, nobody, 'code'), 404);
    const candidate = await Candidate.open(sender);
    assert.equal(await handOver(phone, candidate, 'code'), 204);
    await candidate.ended();
    assert.equal(await handOver(phone, candidate, 'code'), 404, 'one message for one address');

    const list = async () => (await phone.client.request('GET', '/v1/devices')).json.devices.map(({ id }) => id);
    assert.deepEqual(await list(), [1]);

    const done = await attempt(() => {});
    assert.equal(done.status, 200);
    assert.equal((await putLink(receiver, done.device, done.request)).status, 403, 'a code serves once');
    done.device.deviceId = 2;
    const linked = new Person('Tablet', done.device);
    const tablet = await linked.open(sender);
    const code = await tablet.client.request('GET', '/v1/devices/provisioning/code');
    assert.equal(code.status, 401, 'only a primary links');
    await linked.close();

    await linkTo(phone, sender);
    assert.deepEqual(await list(), [1, 2, 3]);
    const full = await phone.client.request('GET', '/v1/devices/provisioning/code');
    assert.equal(full.status, 411);
    assert.deepEqual(full.json, { current: 3, max: 3 });
  }, { DEVICES__MAX_PER_ACCOUNT: '3' });
}

/** When a device came, which only its account can read. */
function createdAt({ id, registrationId, createdAtCiphertext }, device) {
  const associated = Buffer.alloc(5);
  associated.writeUInt8(id);
  associated.writeInt32BE(registrationId, 1);
  const sealed = bytesFrom(createdAtCiphertext);
  const opened = device.identity.privateKey.open(sealed, 'deviceCreatedAt', new Uint8Array(associated));
  return Number(Buffer.from(opened).readBigInt64BE());
}
