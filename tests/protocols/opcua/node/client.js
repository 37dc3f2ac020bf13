// A client by others (node-opcua): `node client.js RUNS`, a JSON array of {url, policy, mode, folder, user, password, certificate,
// items, renewals}. In each run it browses, reads, writes, calls, reads history, subscribes to so many items, has its
// channel renewed so often, and says what came of it as a line of JSON. `folder` has own.der and own.pem.
"use strict";
const fs = require("fs");
const os = require("os");
const net = require("net");
const path = require("path");
const {
  OPCUAClient, OPCUACertificateManager, AttributeIds, DataType, SecurityPolicy, MessageSecurityMode, UserTokenType,
  ClientReverseConnect, TimestampsToReturn, SimpleAttributeOperand, resolveNodeId, constructEventFilter, ofType, ClientMonitoredItemGroup, ReadRawModifiedDetails, HistoryReadRequest, StatusCodes, ClientSubscription,
} = require("node-opcua");

const PATIENT = 180; // seconds after which something that should have come is given up

// A way to a port that can be cut: { url, cut }.
async function relay(port) {
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(port, "127.0.0.1");
    const end = () => [near, far].forEach((one) => { one.destroy(); sockets.delete(one); });
    for (const one of [near, far]) sockets.add(one.on("error", end).on("close", end));
    near.pipe(far).pipe(near);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `opc.tcp://127.0.0.1:${server.address().port}`, cut: () => [...sockets].forEach((one) => one.destroy()) };
}

// A connection is cut, and the client's own way of coming back has its subscription go on.
async function cut(session, node, way) {
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 100, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10,
    publishingEnabled: true, maxNotificationsPerPublish: 0 });
  const first = subscription.subscriptionId;
  const item = await subscription.monitor({ nodeId: node("Level"), attributeId: AttributeIds.Value },
    { samplingInterval: 100, queueSize: 10, discardOldest: true }, TimestampsToReturn.Both);
  const marks = [];
  let seen = 0;
  const more = async (count) => {
    for (let at = 0, until = seen + count; seen < until && at < 20 * PATIENT; at++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  item.on("changed", (value) => { seen++; if (value.statusCode.value) marks.push(value.statusCode.value); });
  await more(3);
  const [before, id, marked] = [seen, String(session.sessionId), marks.length];
  way.cut();
  await more(3);
  // A busy machine may be behind more often than once: whatever is lost is told, and what is not is not.
  return { session: String(session.sessionId) === id, same: subscription.subscriptionId === first, more: seen >= before + 3,
    marks: [...new Set(marks)], whole: marks.length - marked < seen - before };
}

async function run({ url, reverse = "", server = "", policy, mode, folder, user, password, certificate, events: EVENTS = false, refreshes = false, rule = false, cuts = false, items: ITEMS = 0, renewals: RENEWALS = 0 }) {
  const found = {};
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "peer-"));
  const manager = new OPCUACertificateManager({ automaticallyAcceptUnknownCertificate: true, rootFolder: root });
  await manager.initialize();
  const options = {
    securityPolicy: SecurityPolicy[policy], securityMode: MessageSecurityMode[mode], endpointMustExist: true,
    clientCertificateManager: manager, applicationUri: "urn:mes", keepSessionAlive: true,
    connectionStrategy: cuts ? { maxRetry: -1, initialDelay: 100, maxDelay: 500 } : { maxRetry: 1 }, defaultSecureTokenLifetime: 60000, tokenRenewalInterval: RENEWALS ? 250 : 0, requestedSessionTimeout: 120000,
  };
  if (folder) {
    fs.writeFileSync(path.join(root, "own.crt"), pem(fs.readFileSync(path.join(folder, "own.der"))));
    options.certificateFile = path.join(root, "own.crt");
    options.privateKeyFile = path.join(folder, "own.pem");
  }
  if (server) options.serverCertificate = fs.readFileSync(server);
  const client = OPCUAClient.create(options);
  const waits = reverse ? new ClientReverseConnect({ connectionUrl: reverse }) : null;
  const way = cuts ? await relay(Number(new URL(url.replace("opc.tcp", "http")).port)) : { url };
  if (waits) {
    await waits.start();
    await client.connectReverse(waits, { endpointUrl: url });
  } else {
    await client.connect(way.url);
  }
  let renewed = 0;
  client.on("security_token_renewed", () => renewed++);
  const identity = user
    ? { type: UserTokenType.UserName, userName: user, password }
    : certificate
      ? {
          type: UserTokenType.Certificate, certificateData: fs.readFileSync(path.join(certificate, "own.der")),
          privateKey: fs.readFileSync(path.join(certificate, "own.pem"), "utf8"),
        }
      : { type: UserTokenType.Anonymous };
  const session = await client.createSession(identity);
  const names = await session.readNamespaceArray();
  const index = names.indexOf("urn:plant:line");
  const node = (name) => `ns=${index};s=Line1${name ? "." + name : ""}`;
  const below = await session.browse({ nodeId: node(""), resultMask: 63, browseDirection: 0, includeSubtypes: true,
    referenceTypeId: "HierarchicalReferences" });
  found.browse = [...new Set(below.references.map((one) => one.browseName.name))].filter((one) => one !== "SpeedAlarm").sort();
  const values = await session.read(
    ["Speed", "Secret", "Counts"].map((name) => ({ nodeId: node(name), attributeId: AttributeIds.Value })));
  found.read = values.map((one) => one.statusCode.name);
  found.counts = Array.from(values[2].value.value || []);
  const write = async (value) => (await session.write({
    nodeId: node("Speed"), attributeId: AttributeIds.Value, value: { value: { dataType: DataType.Double, value } },
  })).name;
  found.write = [await write(120.0), await write(9999.0)];
  const call = async (name, count) => (await session.call({
    objectId: node(""), methodId: node(name), inputArguments: [{ dataType: DataType.Int32, value: count }],
  }));
  const called = await call("Reset", 3);
  found.call = [called.statusCode.name, (await call("Reset", 30)).statusCode.name, (await call("Purge", 3)).statusCode.name];
  found.arguments = (await session.getArgumentDefinition(node("Reset"))).inputArguments.map((one) => one.name);
  const past = await session.readHistoryValue(node("Level"), new Date(Date.now() - 60000), new Date());
  found.history = [past.statusCode.name, past.historyData ? past.historyData.dataValues.length > 0 : false];
  if (cuts) found.cut = await cut(session, node, way);
  if (EVENTS) {
    const subscription = await session.createSubscription2({
      requestedPublishingInterval: 100, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10,
      publishingEnabled: true, maxNotificationsPerPublish: 0 });
    const filter = constructEventFilter(
      ["Message", "Severity", "SourceName", { namespaceIndex: index, name: "Batch" }, "LocalTime", "EventId", "AckedState.Id"],
      ofType("BaseEventType"));
    // Which condition an event tells of stands in no field that a path leads to (OPC 10000-9, 5.5.2).
    if (rule) filter.selectClauses.push(new SimpleAttributeOperand({
      typeDefinitionId: resolveNodeId("i=2782"), browsePath: [], attributeId: AttributeIds.NodeId }));
    const item = await subscription.monitor({ nodeId: node(""), attributeId: AttributeIds.EventNotifier },
      { samplingInterval: 0, queueSize: 100, discardOldest: true, filter }, TimestampsToReturn.Both);
    const seen = {};
    let state = {};
    await new Promise((resolve) => {
      item.on("changed", (fields) => {
        const [message, severity, source, batch, local, id, acked, condition] = fields.map((one) => one.value);
        if (acked !== null && id) state = { id, acked, condition };
        seen[message.text.split(" ")[0]] = [severity, source, batch, local];
        if (Object.keys(seen).length === 2) resolve();
      });
      item.on("err", (error) => { seen.error = String(error); resolve(); });
      setTimeout(() => resolve(), 1000 * PATIENT).unref();
    });
    found.events = { ...seen };
    const acknowledge = async (objectId, id, comment) => (await session.call({ objectId, methodId: "i=9111",
      inputArguments: [{ dataType: DataType.ByteString, value: id },
        { dataType: DataType.LocalizedText, value: { text: comment, locale: "en" } }] })).statusCode.name;
    const until = async (true_) => {
      for (let at = 0; at < 20 * PATIENT && !true_(); at++) await new Promise((resolve) => setTimeout(resolve, 50));
    };
    if (refreshes) {
      const called = await session.call({ objectId: "i=2782", methodId: "i=3875",
        inputArguments: [{ dataType: DataType.UInt32, value: subscription.subscriptionId }] });
      await until(() => seen.Condition);
      found.refresh = [called.statusCode.name, Boolean(seen.Condition)];
      const alarm = node("SpeedAlarm");
      found.acknowledge = [
        await acknowledge(alarm, state.id, "x".repeat(300)), state.acked, await acknowledge(alarm, state.id, "seen by the office")];
      await until(() => state.acked);
      found.acknowledge.push(state.acked);
    }
    if (rule) { // the alarm goes, and comes anew
      await write(0.0);
      await until(() => state.condition);
      await write(120.0);
      await until(() => state.acked === false);
      const alarm = state.condition;
      found.rule = [
        await acknowledge(alarm, state.id, "x".repeat(300)), await acknowledge(alarm, Buffer.from("another"), "x"),
        await acknowledge(node("Level"), state.id, "x"), state.acked, await acknowledge(alarm, state.id, "seen by the rule")];
      await until(() => state.acked);
      found.rule.push(state.acked);
    }
    await subscription.terminate();
  }
  if (ITEMS) {
    const subscription = await session.createSubscription2({
      requestedPublishingInterval: 100, requestedLifetimeCount: 600, requestedMaxKeepAliveCount: 10,
      publishingEnabled: true, maxNotificationsPerPublish: 0 });
    const seen = new Set();
    const items = Array.from({ length: ITEMS }, () => ({ nodeId: node("Level"), attributeId: AttributeIds.Value }));
    const group = ClientMonitoredItemGroup.create(
      subscription, items, { samplingInterval: 1000, queueSize: 1, discardOldest: true }, TimestampsToReturn.Both);
    await new Promise((resolve, reject) => {
      group.on("changed", (_item, _value, number) => {
        seen.add(number);
        if (seen.size === ITEMS) resolve();
      });
      group.on("err", (error) => reject(new Error(String(error))));
      setTimeout(() => resolve(), 1000 * PATIENT).unref();
    });
    found.items = seen.size;
    await subscription.terminate();
  }
  while (renewed < RENEWALS) {
    const again = await session.read({ nodeId: node("Speed"), attributeId: AttributeIds.Value });
    if (again.statusCode !== StatusCodes.Good) throw new Error(again.statusCode.name);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  found.renewed = renewed;
  await session.close();
  await client.disconnect();
  if (waits) await waits.stop();
  return found;
}

function pem(der) {
  return `-----BEGIN CERTIFICATE-----\n${der.toString("base64").match(/.{1,64}/g).join("\n")}\n-----END CERTIFICATE-----\n`;
}

console.log = console.warn = console.error = () => {};
async function main() {
  for (const one of JSON.parse(process.argv[2])) {
    let found;
    try {
      found = await run(one);
    } catch (error) {
      found = { error: String(error.message).slice(0, 500) };
    }
    process.stdout.write(`${JSON.stringify(found)}\n`);
  }
}

main().then(() => process.exit(0));
