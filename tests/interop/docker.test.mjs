// docker/ without a container engine: whether its files fit each other, the repository and the server.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { access, mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { parse } from 'yaml';

const run = promisify(execFile);

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BINARY = process.env.BLIND_RELAY_BIN ?? join(ROOT, 'target/debug/blind-relay');
const read = (path) => readFile(join(ROOT, path), 'utf8');

const dockerfile = instructions(await read('docker/Dockerfile'));
const compose = parse(await read('docker/compose.yaml'), { merge: true, uniqueKeys: true });
const services = Object.entries(compose.services);
const nodes = services.filter(([, { image }]) => image === 'blind-relay');

describe('docker/compose.yaml', () => {
  let folder;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'blind-relay-docker-'));
    await mkdir(join(folder, 'relay'));
    await mkdir(join(folder, 'postgres'));
    await run(join(ROOT, 'docker/init-secrets'), [join(folder, 'relay'), join(folder, 'postgres')]);
  });
  after(() => rm(folder, { recursive: true }));

  test('names only services, networks, volumes and files that exist', async () => {
    const named = { networks: new Set(), volumes: new Set() };
    for (const [name, service] of services) {
      for (const other of namesOf(service.depends_on)) {
        assert.ok(compose.services[other], `${name} depends on ${other}`);
      }
      for (const network of namesOf(service.networks)) named.networks.add(network);
      for (const volume of service.volumes ?? []) {
        const [source] = volume.split(':');
        if (source.startsWith('.')) await access(join(ROOT, 'docker', source));
        else named.volumes.add(source);
      }
      for (const secret of namesOf(service.secrets)) {
        assert.ok(compose.secrets?.[secret], `${name} uses secret ${secret}`);
      }
      if (service.build) {
        await access(join(ROOT, 'docker', service.build.context, service.build.dockerfile));
      }
    }
    assert.deepEqual([...named.networks].sort(), Object.keys(compose.networks).sort());
    assert.deepEqual([...named.volumes].sort(), Object.keys(compose.volumes).sort());
  });

  test('waits for what has a health check or an end', () => {
    for (const [name, { depends_on }] of services) {
      if (!depends_on || Array.isArray(depends_on)) continue;
      for (const [other, { condition }] of Object.entries(depends_on)) {
        const { healthcheck, restart } = compose.services[other];
        if (condition === 'service_healthy') assert.ok(healthcheck, `${name} waits for ${other}`);
        else assert.equal(restart, undefined, `${other} ends, so that ${name} can start`);
      }
    }
  });

  test('publishes ports on loopback only, because registration is open', () => {
    for (const [name, { ports = [] }] of services) {
      for (const port of ports) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/, name);
    }
  });

  test('has two nodes whose settings the server accepts', async () => {
    assert.equal(nodes.length, 2);
    const image = Object.fromEntries(dockerfile.filter(([word]) => word === 'ENV').flatMap(([, text]) => pairs(text)));
    for (const [name, service] of nodes) {
      const mounted = service.volumes.find((volume) => volume.startsWith('relay-secrets:')).split(':')[1];
      const environment = Object.entries({ ...image, ...service.environment }).map(([key, value]) => {
        assert.equal(typeof value, 'string', `${name}: ${key} is text`);
        return [key, value.replace(mounted, join(folder, 'relay'))];
      });
      const arguments_ = [...(service.command ?? []), 'config'];
      const { stdout, stderr } = await run(BINARY, arguments_, { env: Object.fromEntries(environment), cwd: folder });
      assert.equal(stderr, '');
      // Each of them took effect: the server names the variable beside the value.
      for (const [key] of environment.filter(([key]) => key.startsWith('BLIND_RELAY_'))) {
        assert.match(stdout, new RegExp(`# environment ${key}$`, 'm'), name);
      }
      const [, drainSecs] = /^drain_secs = (\d+)/m.exec(stdout);
      assert.ok(Number.parseInt(service.stop_grace_period) > Number(drainSecs), 'a node may finish what is in flight');
    }
  });

  test('gives both nodes one pepper, one database and one Redis, and each its own data', () => {
    const [[, first], [, second]] = nodes;
    assert.deepEqual(first.environment, second.environment);
    const dataOf = ({ volumes }) => volumes.find((volume) => volume.endsWith(':/var/lib/blind-relay'));
    assert.ok(dataOf(first) && dataOf(second));
    assert.notEqual(dataOf(first), dataOf(second));
  });

  test('agrees with itself about the database', async () => {
    const url = new URL(await readFile(join(folder, 'relay/database-url'), 'utf8'));
    const { environment } = compose.services.postgres;
    assert.ok(compose.services[url.hostname], url.hostname);
    assert.equal(url.username, environment.POSTGRES_USER);
    assert.equal(url.pathname, `/${environment.POSTGRES_DB}`);
    assert.equal(url.password, await readFile(join(folder, 'postgres/password'), 'utf8'));
    const redis = new URL(nodes[0][1].environment.BLIND_RELAY_REDIS_URL);
    assert.ok(compose.services[redis.hostname], redis.hostname);
  });

  test('keeps its secrets over a second start', async () => {
    const files = ['relay/pepper', 'relay/trust-root', 'relay/database-url', 'postgres/password'].map((file) => join(folder, file));
    const contents = () => Promise.all(files.map((file) => readFile(file, 'utf8')));
    const old = await contents();
    for (const secret of old.slice(0, 2)) assert.match(secret, /^[0-9a-f]{64}$/);
    assert.notEqual(old[0], old[1]);
    await run(join(ROOT, 'docker/init-secrets'), [join(folder, 'relay'), join(folder, 'postgres')]);
    assert.deepEqual(await contents(), old);
    for (const file of files) assert.equal((await stat(file)).mode & 0o777, 0o600, file);
  });

  test('has a proxy that knows the nodes', async () => {
    const caddyfile = await read('docker/Caddyfile');
    const [, upstreams] = /reverse_proxy (.*) \{/.exec(caddyfile);
    const [[, port]] = dockerfile.filter(([word]) => word === 'EXPOSE');
    assert.deepEqual(upstreams.split(' '), nodes.map(([name]) => `${name}:${port}`));
    const [published] = compose.services.proxy.ports;
    assert.match(caddyfile, new RegExp(`^https://localhost:${published.split(':')[2]} \\{`, 'm'));
  });
});

describe('docker/Dockerfile', () => {
  const only = (word) => {
    const found = dockerfile.filter(([other]) => other === word);
    assert.ok(found.length > 0, word);
    return found.map(([, text]) => text);
  };

  test('builds the server with the command that the tests use', async () => {
    const build = only('RUN').filter((command) => command.startsWith('cargo '));
    assert.equal(build.length, 1);
    const tests = (await read('tests/run')).split('\n').map((line) => line.trim());
    assert.ok(tests.includes(build[0]), `tests/run does not run "${build[0]}"`);
  });

  test('builds with the pinned toolchain', async () => {
    const [, pinned] = /^channel = "(.*)"$/m.exec(await read('rust-toolchain.toml'));
    assert.ok(only('FROM')[0].startsWith(`rust:${pinned}-`), only('FROM')[0]);
    assert.ok(only('ENV').includes(`RUSTUP_TOOLCHAIN=${pinned}`));
  });

  test('runs the server without rights, on its own data directory', () => {
    assert.deepEqual(only('USER'), ['65532:65532']);
    assert.deepEqual(JSON.parse(only('ENTRYPOINT')[0]), ['/usr/local/bin/blind-relay']);
    const settings = Object.fromEntries(only('ENV').flatMap(pairs));
    assert.deepEqual(only('VOLUME'), [settings.BLIND_RELAY_DATA_DIR]);
    const owned = only('COPY').filter((copy) => copy.includes('--chown=65532:65532'));
    assert.ok(owned.some((copy) => copy.endsWith(` ${settings.BLIND_RELAY_DATA_DIR}`)));
    assert.deepEqual(only('EXPOSE'), [settings.BLIND_RELAY_LISTEN.split(':')[1]]);
  });

  test('is given all that the build reads, and no leftovers', async () => {
    const ignored = (await read('.dockerignore')).split('\n').filter((line) => line && !line.startsWith('#'));
    const members = await workspaceMembers();
    for (const path of ['Cargo.toml', 'Cargo.lock', 'src', 'migrations', 'LICENSE', ...members]) {
      assert.ok(!ignored.includes(path), `${path} is needed`);
      await access(join(ROOT, path));
    }
    for (const path of ['.git', '**/target', '**/node_modules', 'blind-relay-data']) {
      assert.ok(ignored.includes(path), path);
    }
  });
});

/** Instructions of a Dockerfile with their text: comments gone, continued lines joined. */
function instructions(text) {
  return text
    .replace(/^#.*\n/gm, '')
    .replace(/\\\n\s*/g, '')
    .split('\n')
    .filter(Boolean)
    .map((line) => [line.split(' ', 1)[0], line.slice(line.indexOf(' ') + 1).trim()]);
}

/** `A=1 B=2` as pairs. */
function pairs(text) {
  return text.split(/\s+/).map((pair) => pair.split('='));
}

/** Compose writes lists of names also as mappings. */
function namesOf(list = []) {
  return Array.isArray(list) ? list : Object.keys(list);
}

/** The folders of the workspace's members. */
async function workspaceMembers() {
  const [, members] = /^members = (\[.*\])$/m.exec(await read('Cargo.toml'));
  return JSON.parse(members).filter((member) => member !== '.');
}
