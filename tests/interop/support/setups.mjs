// The two set-ups that every story is told on. `open()` gives a fresh one: nothing is shared between tests. What it is
// given are settings of the servers, as environment variables without BLIND_RELAY_.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Node } from './node.mjs';

const POSTGRES = process.env.BLIND_RELAY_TEST_POSTGRES_URL;
const REDIS = process.env.BLIND_RELAY_TEST_REDIS_URL;

/**
 * @typedef {object} Stage
 * @property {Node[]} nodes
 * @property {Node} sender the node that senders connect to
 * @property {Node} receiver the node that receivers connect to
 * @property {() => Promise<void>} close
 */

export const sqliteOneNode = {
  name: 'SQLite, one node',
  missing: null,
  async open(settings) {
    const { folder, remove } = await temporaryFolder();
    const node = new Node('server', join(folder, 'data'), [], settings);
    return started([node], remove);
  },
};

export const postgresTwoNodes = {
  name: 'Postgres and Redis, two nodes',
  missing: missingBackends(),
  async open(settings) {
    const { folder, remove } = await temporaryFolder();
    const database = await freshDatabase();
    const shared = ['--database-url', database.url, '--redis-url', REDIS];
    const common = { ATTACHMENTS__DIR: join(folder, 'attachments'), ...settings };
    const first = new Node('first node', join(folder, 'first'), shared, common);
    const secrets = [
      ...['--pepper-file', join(folder, 'first', 'pepper')],
      ...['--trust-root-file', join(folder, 'first', 'trust-root')],
    ];
    const second = new Node('second node', join(folder, 'second'), [...shared, ...secrets], common);
    return started([first, second], async () => {
      await database.drop();
      await remove();
    });
  },
};

async function started(nodes, cleanUp) {
  const stage = {
    nodes,
    sender: nodes[0],
    receiver: nodes.at(-1),
    async close() {
      await Promise.all(nodes.map((node) => node.kill()));
      await cleanUp();
    },
  };
  try {
    // One after the other: the first creates what they share.
    for (const node of nodes) await node.start();
  } catch (error) {
    const logs = nodes.map((node) => `--- log of ${node.name}\n${node.log()}`).join('\n');
    await stage.close();
    throw new Error(`${error.message}\n${logs}`, { cause: error });
  }
  return stage;
}

async function temporaryFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'blind-relay-interop-'));
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

function missingBackends() {
  const missing = [
    POSTGRES ? null : 'BLIND_RELAY_TEST_POSTGRES_URL',
    REDIS ? null : 'BLIND_RELAY_TEST_REDIS_URL',
  ].filter(Boolean);
  return missing.length > 0 ? `${missing.join(' and ')} not set` : null;
}

/** A database of its own on the test server. */
async function freshDatabase() {
  const name = `blind_relay_interop_${randomBytes(6).toString('hex')}`;
  await administer(`CREATE DATABASE ${name}`);
  const url = new URL(POSTGRES);
  url.pathname = `/${name}`;
  return { url: url.toString(), drop: () => administer(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`) };
}

async function administer(statement) {
  // Imported here, so that the SQLite half runs without it.
  const { default: pg } = await import('pg');
  const client = new pg.Client({ connectionString: POSTGRES });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
