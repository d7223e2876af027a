#!/usr/bin/env node
// A chat in the terminal, to try a blind-relay server with. Start it twice and give each the other's ACI.

import { clearLine, createInterface, cursorTo } from 'node:readline';
import { parseArgs } from 'node:util';

import { ErrorCode, LibSignalErrorBase } from './lib/signal.mjs';
import { NotConnected, Refused, RelayClient, UnknownRecipient, isConnectionLoss } from './lib/client.mjs';
import { Link } from './lib/link.mjs';
import { WrongCode, register } from './lib/register.mjs';
import { ServerProblem, findServer } from './lib/server.mjs';
import { loadState, saveState } from './lib/state-file.mjs';

const HELP = `A small end-to-end encrypted chat for blind-relay.

  node chat.mjs --number +15550000001 --state alice.json

Start it in two terminals with two numbers and two state files. Each prints its own
ACI (the name of its account); type "/to <ACI of the other>" in one and write.

  --number +N     phone number to register with; needed the first time only
  --state FILE    keys and account of this client (default chat-state.json);
                  keep it, it cannot be replaced, and it is secret
  --server URL    default https://127.0.0.1:8443
  --ca FILE       certificate to trust, written by the server
                  (default blind-relay-data/tls/ca-cert.pem)
  --code CODE     verification or invitation code (default 000000, which a server
                  with open registration accepts)
  --to ACI        whom to write to from the start
  --help          this text

While it runs:
  any line        is sent to whom you chose with /to (or who wrote to you first)
  /to ACI         choose whom to write to
  /trust ACI      accept that this person has new keys (a new installation)
  /whoami         print your own ACI again
  /quit           leave (Ctrl-D does the same)

With input from a pipe or a file it is a filter: every line is sent, every message
received is printed as "<first 8 letters of the sender's ACI> <text>", and everything
else goes to standard error. At the end of the input it waits until all is sent and
all that was waiting at the server is printed, then it leaves.
`;

const ACI = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const interactive = Boolean(process.stdin.isTTY && process.stdout.isTTY);
/** The input, once it is being read. */
let lines = null;

async function main() {
  const options = readOptions();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  let peer = options.to ? checkAci(options.to) : null;

  const server = await findServer(options.server, options.ca);
  await server.check();
  const net = server.openNet();
  const device = await loadOrRegister(net, options);
  const persist = oneAtATime(() => saveState(options.state, device));

  let end;
  const ended = new Promise((resolve) => {
    end = resolve;
  });
  let queueEmpty;
  const caughtUp = new Promise((resolve) => {
    queueEmpty = resolve;
  });

  const link = new Link(net, ({ kind, cause, pauseMs }) => {
    if (kind === 'down') say(`connection lost (${cause?.message ?? 'closed by the server'}), trying again in ${seconds(pauseMs)}`);
    if (kind === 'up') say('connected');
    if (kind === 'ended') end(cause);
  });
  const client = new RelayClient(device, {
    persist,
    onMessage: (message) => {
      show(message);
      if (!peer) {
        peer = message.from;
        say(`your lines go to ${peer} now; /to changes that`);
      }
    },
    onQueueEmpty: () => {
      client
        .topUpPreKeys()
        .catch((error) => !isConnectionLoss(error) && say(`warning: ${explain(error).message}`))
        .finally(queueEmpty);
    },
    onInterrupted: link.interrupted,
    onProblem: (error) => say(`a message could not be read: ${error.message}`),
  });

  say(`you are ${device.aci}; give it to your friend`);
  await link.start(client);
  if (interactive && !peer) say('type "/to <ACI of your friend>", then write; /help shows more');

  let sending = Promise.resolve();
  let failed = false;
  lines = createInterface({
    input: process.stdin,
    output: interactive ? process.stdout : undefined,
    terminal: interactive,
    prompt: '> ',
  });
  if (interactive) lines.prompt();
  const handle = async (line) => {
    const [command, argument] = line.trim().split(/\s+/, 2);
    if (command === '') return;
    if (command === '/help') return say(HELP);
    if (command === '/whoami') return say(`you are ${device.aci}`);
    if (command === '/to') {
      peer = checkAci(argument ?? '', device.aci);
      return say(`your lines go to ${peer} now`);
    }
    if (command === '/trust') {
      device.trustAgain(checkAci(argument ?? ''));
      await persist();
      return say('accepted');
    }
    if (command.startsWith('/')) throw new Mistake(`there is no command ${command}`, '/help lists them.');
    if (!peer) throw new Mistake('nobody to write to yet', 'Type "/to <ACI of your friend>" first.');
    await link.send(peer, line);
  };
  lines.on('line', (line) => {
    if (line.trim() === '/quit') return lines.close();
    // One after the other, in the order they were typed.
    sending = sending
      .then(() => handle(line))
      .catch((error) => {
        failed = true;
        const { message, advice } = explain(error);
        say(`not done: ${message}`);
        if (advice) say(`  ${advice}`);
      });
    if (interactive) lines.prompt();
  });
  lines.on('close', async () => {
    await sending;
    // Someone at a terminal who wants to leave has seen what there is; a pipe waits for the whole queue.
    if (!interactive) await caughtUp;
    end(null);
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => end(null));
  lines.on('SIGINT', () => end(null));

  const cause = await ended;
  lines.close();
  if (cause) throw cause;
  await link.stop();
  return failed && !interactive ? 1 : 0;
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        number: { type: 'string' },
        state: { type: 'string', default: 'chat-state.json' },
        server: { type: 'string', default: 'https://127.0.0.1:8443' },
        ca: { type: 'string', default: 'blind-relay-data/tls/ca-cert.pem' },
        code: { type: 'string', default: '000000' },
        to: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    return values;
  } catch (error) {
    throw new Mistake(error.message.split('. ')[0], '"node chat.mjs --help" lists the options.');
  }
}

async function loadOrRegister(net, { state, number, code }) {
  let device;
  try {
    device = await loadState(state);
  } catch (error) {
    throw new Mistake(`cannot use ${state}: ${error.message}`, 'Name another file with --state to start a new account.');
  }
  if (device) {
    if (number && number !== device.number) {
      throw new Mistake(
        `${state} belongs to the number ${device.number}, not to ${number}`,
        'Leave --number out, or name another file with --state.',
      );
    }
    return device;
  }
  if (!number) {
    throw new Mistake(`there is no account in ${state} yet`, 'Register one: --number +15550000001 (any number that is not taken).');
  }
  if (!/^\+[1-9][0-9]{6,14}$/.test(number)) {
    throw new Mistake(`${number} is not a phone number`, 'Write it with a plus and digits, like +15550000001.');
  }
  device = await register(net, { number, code });
  await saveState(state, device);
  say(`registered ${number}; its keys are in ${state}`);
  return device;
}

function checkAci(text, own) {
  const aci = text.toLowerCase();
  if (!ACI.test(aci)) {
    throw new Mistake(
      text ? `"${text}" is not an ACI` : 'an ACI is missing',
      'An ACI looks like 9d0652a3-dcc3-4d11-975f-74d61598733f; your friend sees theirs when their chat starts.',
    );
  }
  if (aci === own) throw new Mistake('that is yourself', 'Use the ACI that your friend sees.');
  return aci;
}

function show({ from, text, sentAt }) {
  const name = from.slice(0, 8);
  // A line break inside a message must not look like a message from someone else, nor may it move the cursor.
  const printable = text.split(/\r\n|\r|\n/).map((line) => line.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?'));
  const stamp = interactive ? `[${when(sentAt)}] ` : '';
  write(process.stdout, printable.map((line) => `${stamp}${name} ${line}\n`).join(''));
}

/** Time of day, with the date when that is not today. */
function when(ms) {
  const date = new Date(ms);
  const time = date.toTimeString().slice(0, 8);
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString('sv-SE')} ${time}`;
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}

function say(text) {
  write(process.stderr, `${text}\n`);
}

/** In a terminal the line being typed moves down, out of the way. */
function write(stream, text) {
  if (!interactive || !lines) {
    stream.write(text);
    return;
  }
  clearLine(process.stdout, 0);
  cursorTo(process.stdout, 0);
  stream.write(text);
  if (!lines.closed) lines.prompt(true);
}

/** Runs one call at a time; calls that come meanwhile share the next run, which sees what they want stored. */
function oneAtATime(work) {
  let running = null;
  let next = null;
  const run = () => {
    const current = work().finally(() => {
      if (running === current) running = null;
    });
    running = current;
    return current;
  };
  return () => {
    if (!running && !next) return run();
    next ??= running
      .catch(() => {})
      .then(() => {
        next = null;
        return run();
      });
    return next;
  };
}

class Mistake extends Error {
  constructor(message, advice) {
    super(message);
    this.advice = advice;
  }
}

/** What happened, and what to do about it. */
function explain(error) {
  if (error instanceof Mistake || error instanceof ServerProblem) return error;
  if (error instanceof UnknownRecipient) {
    return { message: error.message, advice: 'Compare the ACI with what your friend sees, and that both use the same server.' };
  }
  if (error instanceof WrongCode) {
    return { message: error.message, advice: 'Give the code the server sent or logged, or your invitation, with --code.' };
  }
  if (error instanceof Refused && error.status === 429) {
    return { message: error.message, advice: 'The server asks for a pause. Try again in a few minutes.' };
  }
  if (error instanceof NotConnected || isConnectionLoss(error)) {
    return { message: `the connection to the server failed (${error.message})`, advice: 'Look into the log of the server.' };
  }
  const advice = {
    [ErrorCode.ConnectedElsewhere]: 'The same state file is in use by another window, which has taken over. Use one window per state file.',
    [ErrorCode.DeviceDelinked]: 'The server does not know this account: the state file is from another server or data directory, or the account was removed. Name a new file with --state.',
    [ErrorCode.ConnectionInvalidated]: 'The account was removed or registered again elsewhere. Name a new file with --state.',
    [ErrorCode.UntrustedIdentity]: 'The other side has new keys, as after a new installation. If you know why, accept them with /trust <ACI> and write again.',
    [ErrorCode.RateLimitedError]: 'The server asks for a pause. Try again in a few minutes.',
    [ErrorCode.RegistrationLock]: 'This number is locked by its owner. Register another one.',
    [ErrorCode.RegisterAccountRequestRejected]: 'The server does not register new accounts this way; its log and its --registration setting say what it wants.',
    [ErrorCode.RegistrationRequestRejected]: 'The server does not register new accounts this way; its log and its --registration setting say what it wants.',
  };
  const text = error instanceof LibSignalErrorBase ? advice[error.code] : undefined;
  return { message: error.message || String(error), advice: text };
}

main().then(
  (status) => process.exit(status),
  (error) => {
    const { message, advice } = explain(error);
    say(`error: ${message}`);
    if (advice) say(`  ${advice}`);
    process.exit(1);
  },
);
