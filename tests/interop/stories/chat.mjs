// The example chat, as two people at two terminals would use it.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Chat } from '../support/chat.mjs';
import { numbered } from '../support/person.mjs';

/** A certificate authority that no server uses; its key was thrown away. */
const OTHER_CA = fileURLToPath(new URL('../support/other-ca.pem', import.meta.url));

export function chat(story) {
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
