// A plant's server by others (node-opcua): `node server.js PORT [FOLDER [URL]]`, the same nodes as ../plant.py has. With
// FOLDER (own.der, own.pem) it offers security alone. With a URL after that it opens connections to a client that waits
// there (reverse connect). It says "ready" on stdout, and then what is called.
"use strict";
const fs = require("fs");
const os = require("os");
const path = require("path");
const {
  OPCUAServer, OPCUACertificateManager, Variant, DataType, VariantArrayType, StatusCodes, SecurityPolicy,
  MessageSecurityMode, nodesets,
} = require("node-opcua");

async function main() {
  const [port, folder] = [Number(process.argv[2]), process.argv[3]];
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "peer-"));
  const manager = new OPCUACertificateManager({ automaticallyAcceptUnknownCertificate: true, rootFolder: root });
  await manager.initialize();
  const options = {
    port, hostname: "127.0.0.1", host: "127.0.0.1", serverCertificateManager: manager, maxConnectionsPerEndpoint: 60,
    serverCapabilities: { maxSessions: 60 }, serverInfo: { applicationUri: "urn:plant:server" },
    allowAnonymous: true, nodeset_filename: [nodesets.standard],
  };
  if (folder) {
    fs.writeFileSync(path.join(root, "own.crt"), pem(fs.readFileSync(path.join(folder, "own.der")), "CERTIFICATE"));
    Object.assign(options, {
      certificateFile: path.join(root, "own.crt"), privateKeyFile: path.join(folder, "own.pem"),
      securityPolicies: [
        SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep, SecurityPolicy.Aes256_Sha256_RsaPss,
      ],
      securityModes: [MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
    });
  } else {
    Object.assign(options, { securityPolicies: [SecurityPolicy.None], securityModes: [MessageSecurityMode.None] });
  }
  if (process.argv[4]) {
    options.host = "0.0.0.0";
    options.reverseConnect = { connections: [{ endpointUrl: process.argv[4] }], reconnectDelay: 200, maxReconnectDelay: 500 };
  }
  const server = new OPCUAServer(options);
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.registerNamespace("urn:plant:line");
  const other = space.registerNamespace("urn:plant:other");
  for (const [namespace, number] of [[own, 100.0], [other, -1.0]]) {
    const line = namespace.addObject({ browseName: "Line1", nodeId: "s=Line1",
      organizedBy: space.rootFolder.objects, eventNotifier: 1, eventSourceOf: space.rootFolder.objects.server });
    for (const name of ["Speed", "Level"]) {
      const node = namespace.addVariable({
        browseName: name, nodeId: `s=Line1.${name}`, componentOf: line, dataType: "Double", accessLevel: 7,
        userAccessLevel: 7,
      });
      node.setValueFromSource({ dataType: DataType.Double, value: number });
      if (name === "Level") {
        space.installHistoricalDataNode(node);
        if (namespace === own) {
          let at = 0;
          setInterval(() => node.setValueFromSource({ dataType: DataType.Double, value: ++at }), 50).unref();
        }
      }
    }
  }
  const line = own.findNode("s=Line1");
  for (const [name, value] of [
    ["Recipe", { dataType: DataType.String, value: "cola" }],
    ["Counts", { dataType: DataType.Int32, arrayType: VariantArrayType.Array, value: Int32Array.from([1, 2, 3, 4]) }],
    ["Secret", { dataType: DataType.Int32, value: 42 }],
    ["Due", { dataType: DataType.DateTime, value: new Date("2027-06-30T12:00:00Z") }],
    ["Order", { dataType: DataType.Guid, value: "00000000-0000-0000-0000-000000000007" }],
    ["Target", { dataType: DataType.NodeId, value: line.nodeId }],
    ["Grid", { dataType: DataType.Double, arrayType: VariantArrayType.Matrix, dimensions: [2, 3],
      value: Float64Array.from([1, 2, 3, 4, 5, 6]) }],
  ]) {
    const node = own.addVariable({
      browseName: name, nodeId: `s=Line1.${name}`, componentOf: line, dataType: value.dataType,
      valueRank: value.dimensions ? 2 : value.arrayType ? 1 : -1, arrayDimensions: value.dimensions || null,
      accessLevel: 3, userAccessLevel: 3,
    });
    node.setValueFromSource(value);
  }
  let calls = 0;
  for (const name of ["Reset", "Purge"]) {
    const method = own.addMethod(line, {
      browseName: name, nodeId: `s=Line1.${name}`,
      inputArguments: [{ name: "count", dataType: DataType.Int32 }],
      outputArguments: [{ name: "calls", dataType: DataType.Int32 }],
    });
    method.bindMethod((_inputs, _context, done) => {
      process.stdout.write(`${name}\n`);
      done(null, { statusCode: StatusCodes.Good, outputArguments: [{ dataType: DataType.Int32, value: ++calls }] });
    });
  }
  const jam = own.addEventType({ browseName: "JamEventType", subtypeOf: "BaseEventType" });
  own.addVariable({ propertyOf: jam, browseName: "Batch", dataType: "String", modellingRule: "Mandatory" });
  space.installAlarmsAndConditionsService();
  const speed = own.findNode("s=Line1.Speed");
  line.addReference({ referenceType: "HasEventSource", nodeId: speed });
  const alarm = own.instantiateNonExclusiveLimitAlarm("NonExclusiveLimitAlarmType", {
    browseName: "SpeedAlarm", nodeId: "s=Line1.SpeedAlarm", organizedBy: line, conditionSource: speed, inputNode: speed, highHighLimit: 1e6,
    highLimit: 0.5, lowLimit: -1e6, lowLowLimit: -1e7,
  });
  alarm.setEnabledState(true);
  speed.setValueFromSource({ dataType: DataType.Double, value: 101.0 });
  let ticks = 0;
  setInterval(() => {
    line.raiseEvent("BaseEventType", { message: { dataType: DataType.LocalizedText, value: { text: `tick ${++ticks}` } },
      severity: { dataType: DataType.UInt32, value: 100 } });
    line.raiseEvent(jam, { message: { dataType: DataType.LocalizedText, value: { text: `jam ${ticks}` } },
      severity: { dataType: DataType.UInt32, value: 700 }, batch: { dataType: DataType.String, value: "B7" } });
  }, 200).unref();
  await server.start();
  process.stdout.write("ready\n");
}

function pem(der, what) {
  const lines = der.toString("base64").match(/.{1,64}/g).join("\n");
  return `-----BEGIN ${what}-----\n${lines}\n-----END ${what}-----\n`;
}

console.log = console.warn = console.error = () => {}; // its notices go to stdout otherwise
main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
