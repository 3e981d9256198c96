// Serves the files of the current directory, and keeps what is sent to /upload as a file in uploads/.
//
//     node web.js PORT
const fs = require("node:fs");
const http = require("node:http");
const { pipeline } = require("node:stream");

http
  .createServer((request, answer) => {
    if (request.url === "/upload") {
      pipeline(request, fs.createWriteStream("uploads/one"), (error) => {
        if (error) throw error;
        answer.end("kept");
      });
      return;
    }
    const file = "." + request.url.split("?")[0];
    answer.setHeader("Content-Length", fs.statSync(file).size);
    // A client that goes away in the middle is no error of the server's.
    pipeline(fs.createReadStream(file), answer, () => {});
  })
  .listen(Number(process.argv[2]));
