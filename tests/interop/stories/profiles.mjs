// Profiles: what people tell their contacts about themselves, under a key that the server never sees.

import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, createHmac, randomBytes, randomUUID } from 'node:crypto';

import { Aci, zkgroup } from '../../../examples/chat/lib/signal.mjs';
import { base64, bytesFrom } from '../../../examples/chat/lib/device.mjs';
import { connectAnonymously } from '../support/afterwards.mjs';
import { ask } from '../support/https.mjs';
import { setAccess, someAccessKey } from '../support/scenes.mjs';

const NAME_BYTES = 53;

export function profiles(story) {
  story('a profile is read with the access key that its profile key gives', async ({ sender, receiver, register }) => {
    const alice = await (await register(sender, 'Alice')).open(sender);
    const { device } = alice.client;
    const key = await publish(alice, 'Alice Liddell');
    await setAccess(alice, { accessKey: key.deriveAccessKey() });

    const read = (node, version, accessKey, aci = device.aci) =>
      ask(node, 'GET', `/v1/profile/${aci}/${version}`, { headers: { 'unidentified-access-key': base64(accessKey) } });
    const version = versionOf(key, device.aci);
    const answer = await read(receiver, version, key.deriveAccessKey());
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/json');
    const profile = JSON.parse(answer.body);
    assert.equal(open(key, profile.name), 'Alice Liddell');
    assert.equal(profile.identityKey, base64(device.identity.publicKey.serialize()));
    assert.equal(profile.capabilities.spqr, true);
    assert.equal(profile.unrestrictedUnidentifiedAccess, false);
    // By this a contact sees that its access key is still the right one.
    const proof = createHmac('sha256', device.accessKey).update(Buffer.alloc(32)).digest();
    assert.ok(Buffer.from(profile.unidentifiedAccess, 'base64').equals(proof));

    assert.equal((await read(receiver, version, someAccessKey())).status, 401);
    assert.equal((await read(receiver, version, key.deriveAccessKey(), randomUUID())).status, 401);

    const bob = await (await register(receiver, 'Bob')).open(receiver);
    const contact = await bob.client.request('GET', `/v1/profile/${device.aci}/${version}`);
    assert.equal(open(key, contact.json.name), 'Alice Liddell');
    const nobody = await bob.client.request('GET', `/v1/profile/${randomUUID()}/${version}`);
    assert.equal(nobody.status, 404);
  });

  story('a new profile key has a profile of its own', async ({ sender, receiver, register }) => {
    const alice = await (await register(sender, 'Alice')).open(sender);
    const bob = await (await register(receiver, 'Bob')).open(receiver);
    const { aci } = alice.client.device;
    const old = await publish(alice, 'before');
    const renewed = await publish(alice, 'after');
    const read = async (key) => {
      const { status, json } = await bob.client.request('GET', `/v1/profile/${aci}/${versionOf(key, aci)}`);
      assert.equal(status, 200);
      return json.name === null ? null : open(key, json.name);
    };
    assert.equal(await read(renewed), 'after');
    assert.equal(await read(old), 'before');
    assert.equal(await read(someProfileKey()), null, 'a version that nobody wrote');
  });

  story('a picture is found by those who read the profile', async ({ sender, receiver, register }) => {
    const alice = await (await register(sender, 'Alice')).open(sender);
    const { aci, accessKey } = alice.client.device;
    const key = someProfileKey();
    const picture = randomBytes(30_000);
    const form = await put(alice, key, 'Alice', { avatar: true });
    assert.equal(form.status, 200);
    const { headers, signedUploadLocation } = form.json;
    const created = await ask(sender, 'POST', signedUploadLocation, {
      headers: {
        ...headers,
        'tus-resumable': '1.0.0',
        'upload-length': String(picture.length),
        'content-type': 'application/offset+octet-stream',
      },
      body: picture,
    });
    assert.equal(created.status, 201);

    const read = async () => {
      const path = `/v1/profile/${aci}/${versionOf(key, aci)}`;
      const { body } = await ask(receiver, 'GET', path, { headers: { 'unidentified-access-key': base64(accessKey) } });
      return JSON.parse(body);
    };
    const { avatar } = await read();
    assert.ok((await ask(receiver, 'GET', `/${avatar}`)).body.equals(picture));
    assert.equal((await put(alice, key, 'Alice again', { avatar: true, sameAvatar: true })).status, 200);
    const same = await read();
    assert.equal(same.avatar, avatar);
    assert.equal(open(key, same.name), 'Alice again');
    assert.equal((await put(alice, key, 'Alice')).status, 200);
    assert.equal((await read()).avatar, null);
  });

  story('an account exists, or it does not', async ({ sender, receiver, register }) => {
    const alice = await register(sender, 'Alice', { preKeys: 0 });
    const anonymous = await connectAnonymously(receiver);
    try {
      const exists = (aci) => anonymous.connection.accountExists({ account: Aci.parseFromServiceIdString(aci) });
      assert.equal(await exists(alice.aci), true);
      assert.equal(await exists(randomUUID()), false);
    } finally {
      await anonymous.close();
    }
  });
}

function someProfileKey() {
  return new zkgroup.ProfileKey(new Uint8Array(randomBytes(zkgroup.ProfileKey.SIZE)));
}

function versionOf(key, aci) {
  return key.getProfileKeyVersion(Aci.parseFromServiceIdString(aci)).toString();
}

/** Publishes a profile under a new key. */
async function publish(window, name) {
  const key = someProfileKey();
  assert.equal((await put(window, key, name)).status, 200);
  return key;
}

function put(window, key, name, { avatar = false, sameAvatar = false } = {}) {
  const { aci } = window.client.device;
  return window.client.request('PUT', '/v1/profile', {
    version: versionOf(key, aci),
    commitment: base64(key.getCommitment(Aci.parseFromServiceIdString(aci)).serialize()),
    name: seal(key, name),
    about: null,
    aboutEmoji: null,
    avatar,
    sameAvatar,
  });
}

/** As apps do it: padded, AES-256-GCM under the profile key, nonce in front and tag behind. */
function seal(key, name) {
  const padded = Buffer.alloc(NAME_BYTES);
  padded.write(name);
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key.serialize(), nonce);
  return base64(Buffer.concat([nonce, cipher.update(padded), cipher.final(), cipher.getAuthTag()]));
}

function open(key, sealed) {
  const bytes = Buffer.from(bytesFrom(sealed));
  const decipher = createDecipheriv('aes-256-gcm', key.serialize(), bytes.subarray(0, 12));
  decipher.setAuthTag(bytes.subarray(-16));
  const padded = Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
  return padded.subarray(0, padded.indexOf(0)).toString('utf8');
}
