// Names by which people find each other. The library hashes, proves and looks up; the calls for owners are H2 only in it,
// so that they are made by hand here.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { ErrorCode, usernames as names } from '../../../examples/chat/lib/signal.mjs';
import { connectAnonymously } from '../support/afterwards.mjs';
import { refusal } from '../support/person.mjs';

export function usernames(story) {
  story('a username is reserved, confirmed, found, and found by its link', async ({ sender, receiver, register }) => {
    const alice = await (await register(sender, 'Alice')).open(sender);
    const bob = await (await register(receiver, 'Bob')).open(receiver);
    const anonymous = await connectAnonymously(receiver);
    const { connection } = anonymous;
    try {
      const candidates = names.generateCandidates('alice', 3, 32);
      const hashes = candidates.map((name) => names.hash(name));
      const find = async (hash) => (await connection.lookUpUsernameHash({ hash }))?.getServiceIdString() ?? null;
      assert.equal(await find(hashes[0]), null);

      const reserved = await reserve(alice, hashes.slice(0, 20));
      assert.equal(reserved.status, 200);
      const username = candidates.find((name) => url(names.hash(name)) === reserved.json.usernameHash);
      const hash = names.hash(username);
      assert.equal(await find(hash), null, 'a reservation is not found');
      assert.equal((await reserve(bob, [hash])).status, 409, 'nor is it given to another one');

      const { entropy, encryptedUsername } = names.createUsernameLink(username);
      const foreign = await confirm(alice, hash, names.generateProof('somebody.42'), encryptedUsername);
      assert.equal(foreign.status, 422, 'the proof is for another name');
      const confirmed = await confirm(alice, hash, names.generateProof(username), encryptedUsername);
      assert.equal(confirmed.status, 200);
      assert.equal(confirmed.json.usernameHash, url(hash));
      assert.equal(await find(hash), alice.client.device.aci);
      const whoami = await alice.client.request('GET', '/v1/accounts/whoami');
      assert.equal(whoami.json.usernameHash, url(hash));
      assert.equal(whoami.json.usernameLinkHandle, confirmed.json.usernameLinkHandle);

      const first = confirmed.json.usernameLinkHandle;
      const byLink = await connection.lookUpUsernameLink({ uuid: first, entropy });
      assert.equal(byLink.username, username);
      assert.equal(url(byLink.hash), url(hash));
      const otherEntropy = names.createUsernameLink(username).entropy;
      const wrongEntropy = connection.lookUpUsernameLink({ uuid: first, entropy: otherEntropy });
      await refusal(wrongEntropy, ErrorCode.InvalidUsernameLinkEncryptedData);
      assert.equal(await connection.lookUpUsernameLink({ uuid: randomUUID(), entropy }), null);

      const renewed = names.createUsernameLink(username);
      const link = await alice.client.request('PUT', '/v1/accounts/username_link', {
        usernameLinkEncryptedValue: url(renewed.encryptedUsername),
        keepLinkHandle: false,
      });
      assert.equal(link.status, 200);
      assert.notEqual(link.json.usernameLinkHandle, first);
      assert.equal(await connection.lookUpUsernameLink({ uuid: first, entropy }), null, 'the old link leads nowhere');
      const again = await connection.lookUpUsernameLink({ uuid: link.json.usernameLinkHandle, entropy: renewed.entropy });
      assert.equal(again.username, username);

      assert.equal((await alice.client.request('DELETE', '/v1/accounts/username_hash')).status, 204);
      assert.equal(await find(hash), null);
      const gone = { uuid: link.json.usernameLinkHandle, entropy: renewed.entropy };
      assert.equal(await connection.lookUpUsernameLink(gone), null);
    } finally {
      await anonymous.close();
    }
  });

  story('of many who want one username, one gets it', async ({ nodes, register }) => {
    const hash = names.hash('wanted.77');
    const windows = [];
    for (let i = 0; i < 4; i += 1) {
      const node = nodes[i % nodes.length];
      windows.push(await (await register(node, `Person ${i}`, { preKeys: 0 })).open(node));
    }
    const answers = await Promise.all(windows.map((window) => reserve(window, [hash])));
    const winners = windows.filter((_, i) => answers[i].status === 200);
    assert.equal(winners.length, 1, `${answers.map(({ status }) => status)}`);
    const { encryptedUsername } = names.createUsernameLink('wanted.77');
    const proof = names.generateProof('wanted.77');
    const losers = windows.filter((window) => window !== winners[0]);
    const unasked = names.hash('unasked.77');
    assert.equal((await confirm(losers[0], unasked, names.generateProof('unasked.77'), encryptedUsername)).status, 409);
    const tryAll = async () => {
      const answers = await Promise.all(losers.map((window) => confirm(window, hash, proof, encryptedUsername)));
      return answers.map(({ status }) => status);
    };
    assert.deepEqual(await tryAll(), [410, 410, 410], 'it is reserved for another one');
    assert.equal((await confirm(winners[0], hash, proof, encryptedUsername)).status, 200);
    assert.deepEqual(await tryAll(), [410, 410, 410], 'it is taken');
    const anonymous = await connectAnonymously(nodes[0]);
    try {
      const owner = await anonymous.connection.lookUpUsernameHash({ hash });
      assert.equal(owner.getServiceIdString(), winners[0].client.device.aci);
    } finally {
      await anonymous.close();
    }
  });
}

function reserve(window, hashes) {
  return window.client.request('PUT', '/v1/accounts/username_hash/reserve', { usernameHashes: hashes.map(url) });
}

function confirm(window, hash, proof, encryptedUsername) {
  return window.client.request('PUT', '/v1/accounts/username_hash/confirm', {
    usernameHash: url(hash),
    zkProof: url(proof),
    encryptedUsername: url(encryptedUsername),
  });
}

const url = (bytes) => Buffer.from(bytes).toString('base64url');
