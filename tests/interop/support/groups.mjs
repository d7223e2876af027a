// Groups as apps make them: one sender key for all members, and one message to all of their devices.

import { randomUUID } from 'node:crypto';

import {
  Aci,
  ContentHint,
  ProtocolAddress,
  SenderKeyDistributionMessage,
  SenderKeyRecord,
  SenderKeyStore,
  UnidentifiedSenderMessageContent,
  groupDecrypt,
  groupEncrypt,
  processSenderKeyDistributionMessage,
  sealedSenderDecryptToUsmc,
  sealedSenderMultiRecipientEncrypt,
  zkgroup,
} from '../../../examples/chat/lib/signal.mjs';
import { pad, unpad } from '../../../examples/chat/lib/padding.mjs';

const MULTI_RECIPIENT = 'application/vnd.signal-messenger.mrm';
const DAY_MS = 24 * 3600 * 1000;

export class SenderKeys extends SenderKeyStore {
  #records = new Map();

  async saveSenderKey(sender, distributionId, record) {
    this.#records.set(`${sender} ${distributionId}`, record.serialize());
  }

  async getSenderKey(sender, distributionId) {
    const bytes = this.#records.get(`${sender} ${distributionId}`);
    return bytes ? SenderKeyRecord.deserialize(bytes) : null;
  }
}

/** One sender's half of a group. */
export class GroupSender {
  #keys = new SenderKeys();
  #id = randomUUID();

  constructor(device, certificate) {
    this.device = device;
    this.certificate = certificate;
  }

  /** What members need to read this sender; apps send it to each of them in a message of its own. */
  async distribution() {
    const message = await SenderKeyDistributionMessage.create(this.device.address, this.#id, this.#keys);
    return message.serialize();
  }

  /** One message to all devices of these accounts that the sender has sessions with, sealed. */
  async seal(text, accounts, { without = [] } = {}) {
    const { device } = this;
    const message = await groupEncrypt(device.address, this.#id, this.#keys, pad(text));
    return sealedSenderMultiRecipientEncrypt({
      content: UnidentifiedSenderMessageContent.new(message, this.certificate, ContentHint.Default, null),
      recipients: accounts.flatMap((aci) => device.knownDevices(aci).map((id) => ProtocolAddress.new(aci, id))),
      excludedRecipients: without.map((aci) => Aci.parseFromServiceIdString(aci)),
      identityStore: device.identityStore,
      sessionStore: device.sessionStore,
    });
  }
}

/** One device's half of a group. */
export class GroupReader {
  #keys = new SenderKeys();

  constructor(device, trustRoot) {
    this.device = device;
    this.trustRoot = trustRoot;
  }

  async meet(sender, distribution) {
    const message = SenderKeyDistributionMessage.deserialize(distribution);
    await processSenderKeyDistributionMessage(sender, message, this.#keys);
  }

  /** Opens an envelope; throws if the server's word for its sender is not good. */
  async read({ content, timestamp }) {
    const sealed = await sealedSenderDecryptToUsmc(content, this.device.identityStore);
    const certificate = sealed.senderCertificate();
    if (!certificate.validate(this.trustRoot, timestamp)) throw new Error('the sender certificate is not valid');
    const sender = ProtocolAddress.new(certificate.senderUuid(), certificate.senderDeviceId());
    return unpad(await groupDecrypt(sender, this.#keys, sealed.contents()));
  }
}

/**
 * The send that the library leaves to the app: with the access keys of all recipients, combined.
 * @returns the status, and the JSON of the answer if it has any
 */
export async function sendToAll(connection, payload, { accessKeys, timestamp = Date.now() }) {
  const combined = new Uint8Array(16);
  for (const key of accessKeys) key.forEach((byte, i) => (combined[i] ^= byte));
  const { status, body } = await connection.fetch({
    verb: 'PUT',
    path: `/v1/messages/multi_recipient?ts=${timestamp}&online=false&urgent=true&story=false`,
    headers: [
      ['content-type', MULTI_RECIPIENT],
      ['unidentified-access-key', Buffer.from(combined).toString('base64')],
    ],
    body: payload,
    timeoutMillis: 20_000,
  });
  return { status, json: body?.length ? JSON.parse(Buffer.from(body).toString('utf8')) : null };
}

/** A group send token that is genuine, of a group server of our own: this server cannot know it. */
export function someGroupSendToken(accounts) {
  const server = zkgroup.ServerSecretParams.generate();
  const group = zkgroup.GroupSecretParams.generate();
  const members = accounts.map((aci) => Aci.parseFromServiceIdString(aci));
  const cipher = new zkgroup.ClientZkGroupCipher(group);
  const expiration = new Date(Math.floor(Date.now() / DAY_MS) * DAY_MS + 2 * DAY_MS);
  const keyPair = zkgroup.GroupSendDerivedKeyPair.forExpiration(expiration, server);
  const response = zkgroup.GroupSendEndorsementsResponse.issue(
    members.map((member) => cipher.encryptServiceId(member)),
    keyPair,
  );
  const endorsements = response.receiveWithServiceIds(members, members[0], group, server.getPublicParams());
  return endorsements.combinedEndorsement.toFullToken(group, response.getExpiration());
}
