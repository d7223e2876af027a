// Servers that stop, politely or not, with people online.

import assert from 'node:assert/strict';

import { assertSameTexts, numbered } from '../support/person.mjs';
import { UNLIMITED, acquainted, sendAll } from '../support/scenes.mjs';

export function restarts(story) {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    story(`a restart by ${signal} in the middle of traffic loses nothing`, async ({ nodes, sender, receiver, register }) => {
      const alice = await (await register(sender, 'Alice')).openForGood(sender);
      const bob = await (await register(receiver, 'Bob')).openForGood(receiver);
      await alice.link.send(bob.client.device.aci, 'hello');
      await bob.read(1);
      await bob.link.send(alice.client.device.aci, 'hello');
      await alice.read(1);

      const there = numbered('there', 300);
      const back = numbered('back', 300);
      let restarted = null;
      const sendThrough = async (window, aci, texts) => {
        for (const [i, text] of texts.entries()) {
          await window.link.send(aci, text);
          if (i === 100) {
            restarted ??= (async () => {
              for (const node of nodes) await node.restart(signal);
            })();
            restarted.catch(() => {}); // reported below
          }
        }
      };
      await Promise.all([
        sendThrough(alice, bob.client.device.aci, there),
        sendThrough(bob, alice.client.device.aci, back),
      ]);
      await restarted;
      assert.ok(alice.interruptions.length > 0 && bob.interruptions.length > 0, 'both felt the restart');
      assertSameTexts((await bob.read(301, { ms: 60_000 })).slice(1), there, 'Bob');
      assertSameTexts((await alice.read(301, { ms: 60_000 })).slice(1), back, 'Alice');
    });

    story(`a drain that is cut by ${signal} goes on after it`, async ({ nodes, sender, receiver, register }) => {
      const [alice, bob] = await acquainted(sender, receiver, register);
      await bob.roundTrip();
      await bob.close();
      const texts = numbered('queued', 600);
      await sendAll(alice, bob.client.device.aci, texts);
      const again = await bob.person.openForGood(receiver);
      await again.read(100);
      for (const node of nodes) await node.restart(signal);
      await again.until(() => again.interruptions.length > 0, 'Bob to feel the restart');
      assertSameTexts(await again.read(600, { ms: 60_000 }), texts, 'Bob');
    }, UNLIMITED);

    story(`a queue survives ${signal}`, async ({ nodes, sender, receiver, register }) => {
      const [alice, bob] = await acquainted(sender, receiver, register);
      const { aci } = bob.client.device;
      await bob.roundTrip();
      await bob.close();
      const texts = numbered('queued', 100);
      await sendAll(alice, aci, texts);
      // At once after the last success: nothing may still be on its way to the disk.
      await Promise.all(nodes.map((node) => node.stop(signal)));
      for (const node of nodes) await node.start();
      const again = await bob.person.open(receiver);
      await again.queueEmpty();
      assertSameTexts(again.texts, texts, 'Bob');
    });
  }
}
