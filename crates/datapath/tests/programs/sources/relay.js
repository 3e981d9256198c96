// Relays TCP connections with pipe().
//
//     node relay.js PORT HOST PORT
const net = require("node:net");

const [port, host, to] = process.argv.slice(2);

net
  .createServer({ allowHalfOpen: true }, (client) => {
    const server = net.connect({ host, port: Number(to), allowHalfOpen: true });
    client.pipe(server);
    server.pipe(client);
    // When one goes away in the middle, so does the other.
    client.on("error", () => server.destroy());
    server.on("error", () => client.destroy());
  })
  .listen(Number(port));
