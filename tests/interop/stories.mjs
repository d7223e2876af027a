// What an unmodified libsignal client experiences, told once and run on each set-up. The stories are in stories/.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { attachments } from './stories/attachments.mjs';
import { chat } from './stories/chat.mjs';
import { connections } from './stories/connections.mjs';
import { groups } from './stories/groups.mjs';
import { keys } from './stories/keys.mjs';
import { linking } from './stories/linking.mjs';
import { messages } from './stories/messages.mjs';
import { profiles } from './stories/profiles.mjs';
import { refusals } from './stories/refusals.mjs';
import { registrations } from './stories/registrations.mjs';
import { restarts } from './stories/restarts.mjs';
import { sealedSender } from './stories/sealed-sender.mjs';
import { usernames } from './stories/usernames.mjs';
import { allFreed } from './support/afterwards.mjs';
import { link } from './support/linking.mjs';
import { Person } from './support/person.mjs';

const STORY_MS = 240_000;

const CHAPTERS = [
  keys,
  messages,
  connections,
  restarts,
  registrations,
  linking,
  sealedSender,
  groups,
  profiles,
  usernames,
  attachments,
  refusals,
  chat,
];

/** @param setup one of support/setups.mjs */
export function tell(setup) {
  if (setup.missing) {
    if (process.env.BLIND_RELAY_TEST_REQUIRE_ALL === '1') {
      test(setup.name, () => assert.fail(`${setup.missing}, and BLIND_RELAY_TEST_REQUIRE_ALL is 1`));
    } else {
      console.log(`skipped: ${setup.name} (${setup.missing})`);
    }
    return;
  }

  describe(setup.name, () => {
    /**
     * A test with its own servers; their logs are printed when it fails.
     * @param {Record<string, string>} [settings] of the servers, as environment variables without BLIND_RELAY_
     */
    const story = (name, tale, settings) =>
      test(name, { timeout: STORY_MS }, async () => {
        const stage = await setup.open(settings);
        const people = [];
        const joined = (person) => {
          people.push(person);
          return person;
        };
        const cast = {
          register: async (node, who, options) => joined(await Person.register(node, who, options)),
          /** Gives the person at this window one more device, which connects to `node`. */
          linkTo: async (window, node, options) => joined(await link(window, node, options)),
        };
        try {
          await tale({ ...stage, ...cast });
        } catch (error) {
          for (const node of stage.nodes) console.error(`--- log of ${node.name} (${name})\n${node.log()}`);
          throw error;
        } finally {
          await Promise.all(people.map((person) => person.close()));
          await stage.close();
        }
      });

    for (const chapter of CHAPTERS) chapter(story);

    after(allFreed);
  });
}
